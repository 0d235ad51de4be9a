#!/usr/bin/env python3
"""How does firn compare with restic and borg, and with what the machine can do at all? All benches, in one run.

Each figure is a whole process: wall seconds, CPU seconds (with children), peak memory of the largest process. All programs
run on the same data in the same run, the page cache warm, encryption on, zstd level 3 (restic: its default, which is about that).
The limit beside each question is the plain command that does the least possible work. Ratios are what counts; the machine is noisy,
so the smallest of the runs is shown. Not for: timing functions inside firn.

Everything lies in memory (/dev/shm) if there is room: a disk's own moods (ext4 takes ten times as long to create files for half a
minute after many were deleted) would drown what is measured.

  benches/peers.py [--small] [--keep] [--only QUESTION ...] [--out FILE.md] [--place FOLDER]
"""
import argparse, os, shutil, subprocess, sys, tempfile
from pathlib import Path

import mounts
from common import HERE, MIB, best, copy, failures, figure, many_files, noise, note, programs, results, run, size_of, source_tree, table

QUESTIONS = ["noise", "source", "files", "mount"]


def fresh(place, name):
    folder = place / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def first_backup(place, label, tree, runs):
    """First backup, repository size, restore, check: of one tree by all programs."""
    note(f"{label}: first backup", "limit", best(runs, lambda: run(f"tar -C {tree} -cf - . | zstd -3 -T2 -q > {place}/limit.zst")), "tar | zstd -3 -T2")
    note(f"{label}: restore", "limit", best(runs, lambda: copy(tree, place / "copy")), "cp -a")
    for program in programs(place):
        times = []
        for _ in range(runs):
            for leftover in place.glob(program.name + "*"):
                shutil.rmtree(leftover)
            program.__init__(place)
            program.init()
            times.append(program.backup(tree))
        note(f"{label}: first backup", program.name, min(times), f"{size_of(program.repository) / MIB:.1f} MiB stored")
        results.append((f"{label}: repository MiB", program.name, size_of(program.repository) / MIB, 0, 0, ""))

        def restore():
            shutil.rmtree(place / "out", ignore_errors=True)
            return program.restore(place / "out")
        note(f"{label}: restore", program.name, best(runs, restore))
        note(f"{label}: check all data", program.name, program.check())
    shutil.rmtree(place / "out", ignore_errors=True)


def unchanged(place, label, tree, runs):
    note(f"{label}: unchanged", "limit", best(runs, lambda: run(["find", tree, "-newermt", "2100-01-01"])), "lstat all")
    for program in programs(place):
        program.count = getattr(program, "count", 0) + 10
        program.backup(tree)
        note(f"{label}: unchanged", program.name, best(runs, lambda: program.backup(tree)))


def floors(small):
    """What must hold: no slower than the others, smaller than the others, within the memory bound."""
    for row in results:
        if row[1] == "firn" and row[4] > 300:
            failures.append(f"{row[0]}: {row[4]:.0f} MiB of memory, more than 300")
        if "memory MiB" in row[0] and row[1] == "firn" and row[2] > 300:
            failures.append(f"{row[0]}: {row[2]:.0f}, more than 300")
    for question in dict.fromkeys(row[0] for row in results):
        firn = figure(question, "firn")
        better = ("first backup" in question and not small) or "repository MiB" in question and "noise" not in question
        for other in ("restic", "borg"):
            theirs = figure(question, other)
            if firn and theirs and better and firn > theirs:
                failures.append(f"{question}: {firn:.2f} against {theirs:.2f} of {other}")
            if firn and theirs and other == "restic" and ("unchanged" in question or question.endswith("find -ls")) and firn > theirs and not small:
                failures.append(f"{question}: {firn:.2f} against {theirs:.2f} of restic")
    mounts.floors(small)


def commit():
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a twentieth of the data, memory floors only: shows that it runs")
    parser.add_argument("--keep", action="store_true", help="leave the data where it is")
    parser.add_argument("--only", choices=QUESTIONS, nargs="+", default=QUESTIONS, help="only these questions")
    parser.add_argument("--out", help="also write the table here")
    parser.add_argument("--place", help="put everything below this folder")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    runs = 1 if arguments.small else arguments.runs
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=HERE, check=True)
    memory = Path("/dev/shm")
    room = memory.is_dir() and shutil.disk_usage(memory).free > (1 if arguments.small else 12) << 30
    place = Path(tempfile.mkdtemp(prefix="firn-bench.", dir=arguments.place or (memory if room else None)))
    versions = [subprocess.run([name, "version" if name == "restic" else "--version"], capture_output=True, text=True).stdout.split("\n")[0]
                for name in ("restic", "borg") if shutil.which(name)]
    print(f"against {', '.join(versions) or 'nobody'}; {os.cpu_count()} processors")
    try:
        share = 20 if arguments.small else 1
        if "noise" in arguments.only:
            work = fresh(place, "noise-work")
            noise(place / "noise", 1024 // share)
            first_backup(work, "noise", place / "noise", runs)
            mounts.trees(work, "noise", place / "noise", runs, names=False)
            shutil.rmtree(work)
            shutil.rmtree(place / "noise")
        if "source" in arguments.only:
            work = fresh(place, "source-work")
            source_tree(place / "source", 1024 // share)
            first_backup(work, "source", place / "source", runs)
            mounts.trees(work, "source", place / "source", runs)
            unchanged(work, "source", place / "source", runs)
            shutil.rmtree(work)
            shutil.rmtree(place / "source")
        if "files" in arguments.only:
            work = fresh(place, "files-work")
            many_files(place / "files", 100_000 // share)
            first_backup(work, "100,000 files" if share == 1 else "5,000 files", place / "files", runs)
            label = "100,000 files" if share == 1 else "5,000 files"
            mounts.trees(work, label, place / "files", runs)
            unchanged(work, label, place / "files", runs)
            shutil.rmtree(work)
            shutil.rmtree(place / "files")
        if "mount" in arguments.only:
            mounts.big_file(fresh(place, "big"), 1024 // share, runs)
            mounts.many_snapshots(fresh(place, "many"), 1000 // share, runs)
            if not arguments.small:
                # What makes these repositories are tests, which would have to be built for this alone.
                mounts.vast_index(fresh(place, "chunks"), 10_000_000, runs)
                mounts.long_history(fresh(place, "history"), 1000, runs)
            mounts.vast_folder(fresh(place, "folder"), 1_000_000 // share, runs)
    finally:
        if not arguments.keep:
            shutil.rmtree(place, ignore_errors=True)
    floors(arguments.small)
    text = table()
    print("\n" + text)
    if arguments.out:
        missed = "\n".join(f"- {failure}" for failure in failures) or "None."
        head = f"Made by `benches/peers.py` at {commit()}, against {', '.join(versions) or 'nobody'}; {os.cpu_count()} processors, everything in memory."
        page = f"# firn beside its peers and its limits\n\n{head}\nSmaller is better; the ratios count, the machine is noisy.\n\n{text}\n\n## Floors missed\n\n{missed}\n"
        Path(arguments.out).write_text(page)
    for failure in failures:
        print("FLOOR MISSED:", failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

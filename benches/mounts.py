"""How fast is the past as a place: firn's mount beside its own restore, the file system itself, and the mounts of restic and borg.

Not for: backup, restore and check (see `peers.py`, which runs these as well).
"""
import os, random, shutil, subprocess, tempfile, time
from pathlib import Path

from common import (FIRN, HERE, MIB, Firn, Mount, at_most, best, copy, failures, figure, note, programs, results, run)

def from_disk(place, label, tree, runs):
    """What `cp -a` itself takes that comes from another file system, as it does from a mount (within one, it has the kernel copy)."""
    disk = Path("/var/tmp")
    if os.stat(disk).st_dev == os.stat(place).st_dev:
        return
    with tempfile.TemporaryDirectory(prefix="firn-bench.", dir=disk) as folder:
        run(["cp", "-a", tree, Path(folder) / "tree"])
        note(f"{label}: cp -a from mount", "limit", best(runs, lambda: copy(Path(folder) / "tree", place / "copy")), "cp -a from a disk, warm")


def trees(place, label, tree, runs, names=True):
    """cp -a out of the mount, against restore; find over it if there are enough names to find."""
    from_disk(place, label, tree, runs)
    if names:
        note(f"{label}: find -ls", "limit", best(runs, lambda: run(["find", tree, "-ls"])), "the tree itself, warm")
    for program in programs(place):
        program.count = getattr(program, "count", 0) or 1
        try:
            with program.mount(place / "mnt") as mounted:
                at = Path(str(mounted.tree) + str(tree))
                note(f"{label}: mount ready", program.name, (mounted.ready, 0, 0))
                if names:
                    note(f"{label}: find -ls", program.name, run(["find", at, "-ls"]), "first time")
                    note(f"{label}: find -ls again", program.name, run(["find", at, "-ls"]))
                note(f"{label}: cp -a from mount", program.name, copy(at, place / "copy"))
            results.append((f"{label}: mount memory MiB", program.name, mounted.rss, 0, 0, ""))
            print(f"  {label}: mount memory {program.name} {mounted.rss:.0f} MiB")
            if program.name == "firn":
                with program.mount_one(place / "mnt", tree):
                    note(f"{label}: cp -a from mount of one snapshot", program.name, copy(place / "mnt", place / "copy"))
        except RuntimeError as error:
            failures.append(f"{program.name}: {error}")

def read_all(path):
    return run(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"])


def big_file(place, mib, runs):
    """One long file: read in order, the first time and again; 4 KiB here and there."""
    label = f"a file of {mib} MiB"
    tree = place / "big"
    tree.mkdir()
    source = random.Random(3)
    with open(tree / "file", "wb") as out:
        for _ in range(mib):
            out.write(source.randbytes(MIB))
    note(f"{label}: read again", "limit", best(runs, lambda: read_all(tree / "file")), "the file itself, in memory")
    for program in programs(place):
        program.init()
        program.backup(tree)

        def restore():
            shutil.rmtree(place / "out", ignore_errors=True)
            return program.restore(place / "out")
        note(f"{label}: restore", program.name, best(runs, restore))
        shutil.rmtree(place / "out", ignore_errors=True)
        program.count = getattr(program, "count", 0) or 1
        first, again, scattered = [], [], []
        for _ in range(runs):
            with program.mount(place / "mnt") as mounted:
                at = Path(str(mounted.tree) + str(tree)) / "file"
                first.append(read_all(at))
                again.append(best(runs, lambda: read_all(at)))
            with program.mount(place / "mnt") as mounted:
                scattered.append(here_and_there(Path(str(mounted.tree) + str(tree)) / "file", mib * MIB, 500))
        note(f"{label}: read", program.name, min(first), "the mount is new")
        note(f"{label}: read again", program.name, min(again))
        note(f"{label}: 500 reads of 4 KiB", program.name, min(scattered), "the mount is new")
        shutil.rmtree(program.repository)
    shutil.rmtree(tree)


def here_and_there(path, size, count):
    places = random.Random(4)
    begin = time.monotonic()
    with open(path, "rb", buffering=0) as file:
        for _ in range(count):
            os.pread(file.fileno(), 4096, places.randrange(size - 4096))
    return time.monotonic() - begin, 0, 0


def first_answer(mount, name):
    """Seconds until the mount has answered its first listing of that folder."""
    begin = time.monotonic()
    with mount as mounted:
        os.listdir(mounted.point / name)
        ready = time.monotonic() - begin
    return ready, 0, mount.rss


def many_snapshots(place, count, runs):
    """How soon does a mount answer that shows very many snapshots?"""
    firn = with_key(place)
    firn.init()
    tree = place / "some"
    tree.mkdir()
    for number in range(count):
        (tree / f"file{number % 10}").write_text(f"version {number}")
        minute = f"{2020 + number // 300:04}-{number // 25 % 12 + 1:02}-{number % 25 + 1:02} 12:00:00"
        run([FIRN, "backup", "-q", "--time", minute, tree], firn.env)
    note(f"{count} snapshots: first ls", "firn", best(runs, lambda: first_answer(firn.mount(place / "mnt"), "snapshots")))
    shutil.rmtree(tree)


def with_key(place, key="0123456789abcdef" * 4):
    """firn with a key file, so that no time goes into the password."""
    firn = Firn(place)
    (place / "key").write_text(key)
    del firn.env["FIRN_PASSWORD"]
    firn.env["FIRN_KEY_FILE"] = str(place / "key")
    return firn


def made_by_test(place, test, scale):
    """firn with a repository that one of its own tests makes at this scale, and nothing in its cache."""
    env = {"FIRN_SCALE": str(scale), "FIRN_SCALE_MAKE": str(place)}
    run(["cargo", "test", "--release", "--locked", "--quiet", "--lib", "--", "--ignored", "--exact", test], env, cwd=HERE)
    firn = with_key(place, "one")
    firn.env |= {"FIRN_REPOSITORY": str(place / "repository"), "FIRN_CACHE_DIR": str(place / "cache")}
    shutil.rmtree(place / "cache", ignore_errors=True)
    return firn


def vast_index(place, chunks, runs):
    """How soon does a mount answer with an index of very many chunks (of which only the metadata exists)?"""
    firn = made_by_test(place, "check::scale::memory_does_not_grow_with_chunks", chunks)
    label = f"{chunks // 1000:,} thousand chunks: first ls"
    note(f"{label}, no local state", "firn", first_answer(firn.mount(place / "mnt"), "latest"))
    note(label, "firn", best(runs, lambda: first_answer(firn.mount(place / "mnt"), "latest")))


def long_history(place, snapshots, runs):
    """Very many snapshots of 100,000 files: how soon are questions about all of them answered, once the catalog exists, and by the mount?"""
    firn = made_by_test(place, "history::scale::many_snapshots_of_many_files", snapshots)
    label = f"{snapshots:,} snapshots of 100,000 files"
    find = [FIRN, "find", "-q", "file42.txt"]
    note(f"{label}: find, no catalog", "firn", run(find, firn.env))
    note(f"{label}: find", "firn", best(runs, lambda: run(find, firn.env)))
    note(f"{label}: history of a file", "firn", best(runs, lambda: run([FIRN, "history", "-q", "/folder0500/file42.txt"], firn.env)))
    note(f"{label}: du", "firn", best(runs, lambda: run([FIRN, "du", "-q", "latest"], firn.env)))
    note(f"{label}: first ls of versions", "firn", best(runs, lambda: first_answer(firn.mount(place / "mnt"), "versions")))

    def below(name):
        with firn.mount(place / "mnt") as mounted:
            begin = time.monotonic()
            run(["ls", "-l", mounted.point / name])
            return time.monotonic() - begin, 0, 0
    note(f"{label}: ls -l of versions of a folder", "firn", best(runs, lambda: below("versions/folder0500")))
    note(f"{label}: ls -l of versions of a file", "firn", best(runs, lambda: below("versions/folder0500/file42.txt")))
    note(f"{label}: ls -l of deleted in a folder", "firn", best(runs, lambda: below("deleted/folder0500")))


def vast_folder(place, count, runs):
    """A folder of very many files: when does its first name come, how much memory does a whole listing take?"""
    tree = place / "vast"
    tree.mkdir()
    for number in range(count):
        os.close(os.open(tree / f"a file with number {number:09}", os.O_CREAT | os.O_WRONLY, 0o644))
    firn = with_key(place)
    firn.init()
    firn.backup(tree)
    note(f"{count:,} files in a folder: find -ls", "limit", run(["find", tree, "-ls"]), "the folder itself, warm")

    def first_name():
        with firn.mount(place / "mnt") as mounted:
            begin = time.monotonic()
            with os.scandir(str(mounted.tree) + str(tree)) as entries:
                next(entries)
                return time.monotonic() - begin, 0, 0
    note(f"{count:,} files in a folder: first name", "firn", best(runs, first_name))
    mount = firn.mount(place / "mnt")
    with mount as mounted:
        note(f"{count:,} files in a folder: find -ls", "firn", run(["find", str(mounted.tree) + str(tree), "-ls"]))
    results.append((f"{count:,} files in a folder: mount memory MiB", "firn", mount.rss, 0, 0, ""))
    print(f"  {count:,} files in a folder: mount memory {mount.rss:.0f} MiB")
    shutil.rmtree(tree)


def floors(small):
    """What a mount must reach beside its own restore, the file system and restic's mount. Shares of work are no measure of speed."""
    questions = list(dict.fromkeys(row[0] for row in results))
    for question in questions:
        label, _, what = question.partition(": ")
        if what.endswith("mount memory MiB") and "files in a folder" in label:
            at_most(question, 256 + 100, "the cache and 100 MiB")
        if small:
            continue
        restore, native, restic = figure(f"{label}: restore", "firn"), figure(f"{label}: find -ls", "limit"), figure(question, "restic")
        bounds = {
            "read": (restore and restore / 0.8, "0.8 × restore"),
            "read again": ((figure(question, "limit") or 0) / 0.9, "0.9 × the file itself"),
            "500 reads of 4 KiB": (restic and restic / 5, "5 × restic's mount"),
            "find -ls": (native and 3 * native, "3 × the tree itself"),
            "find -ls again": (native and 1.5 * native, "1.5 × the tree itself"),
            "first name": (0.2, "so soon"),
            "first ls": (1.0 if "chunks" in label else 0.3, "so soon"),
            "find": (1.0, "so soon"),
            "first ls of versions": (0.2, "so soon"),
            "ls -l of versions of a folder": (0.2, "so soon"),
            "ls -l of versions of a file": (0.2, "so soon"),
            "cp -a from mount": (restore and restore / (0.8 if "files" in label else 0.5), "0.8 × restore, 0.5 × with longer files"),
        }
        if what in bounds:
            at_most(question, *bounds[what])

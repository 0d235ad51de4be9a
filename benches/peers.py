#!/usr/bin/env python3
"""How does firn compare with restic and borg, and with what the machine can do at all?

Each figure is a whole process: wall seconds, CPU seconds (with children), peak memory of the largest process. All programs
run on the same data in the same run, the page cache warm, encryption on, zstd level 3 (restic: its default, which is about that).
The limit beside each question is the plain command that does the least possible work. Ratios are what counts; the machine is noisy,
so the smallest of the runs is shown. Not for: timing functions inside firn.

Everything lies in memory (/dev/shm) if there is room: a disk's own moods (ext4 takes ten times as long to create files for half a
minute after many were deleted) would drown what is measured.

  benches/peers.py [--small] [--keep] [--only QUESTION] [--out FILE.md] [--place FOLDER]
"""
import argparse, os, random, shutil, signal, stat, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
FIRN = HERE / "target/release/firn"
MIB = 1 << 20
results = []          # (question, program, wall, cpu, rss, note)
failures = []


def run(command, env=None, cwd=None, check=True, out=subprocess.DEVNULL):
    """Runs a command; (wall s, cpu s, peak MiB)."""
    full = dict(os.environ, **(env or {}))
    begin = time.monotonic()
    child = subprocess.Popen(command, env=full, cwd=cwd, stdout=out, stderr=subprocess.PIPE, shell=isinstance(command, str))
    error = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - begin
    if check and child.returncode != 0:
        raise RuntimeError(f"{command} ended with {child.returncode}: {error.decode(errors='replace')[-800:]}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def note(question, program, figures, extra=""):
    results.append((question, program, *figures, extra))
    print(f"  {question:34} {program:8} {figures[0]:8.2f} s wall {figures[1]:8.2f} s cpu {figures[2]:6.0f} MiB {extra}", flush=True)


def best(times, action):
    return min((action() for _ in range(times)), key=lambda figures: figures[0])


def size_of(path):
    """Bytes of all files below a folder."""
    return sum(os.lstat(os.path.join(top, name)).st_size for top, _, names in os.walk(path) for name in names)


# ---------------------------------------------------------------- data

def noise(folder, mib):
    folder.mkdir()
    source = random.Random(1)
    for number in range(4):
        with open(folder / f"noise{number}", "wb") as out:
            for _ in range(max(1, mib // 4)):
                out.write(source.randbytes(MIB))


def source_tree(folder, mib):
    """Copies real source and text files until there are enough."""
    folder.mkdir()
    left = mib * MIB
    places = [os.path.expanduser("~/.cargo/registry/src"), "/usr/include", "/usr/share", "/usr/lib/python3", "/usr/lib/gcc", "/usr/lib/x86_64-linux-gnu"]
    for place in places:
        for top, folders, names in os.walk(place):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(top, name)
                info = os.lstat(path)
                if not stat.S_ISREG(info.st_mode) or left <= 0:
                    continue
                target = str(folder) + path
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copyfile(path, target)
                left -= info.st_size
    if left > 0:
        print(f"  (only {mib - left // MIB} MiB of source files found)")


def many_files(folder, count):
    """Small files, a hundred to a folder, half of them text-like."""
    folder.mkdir()
    source = random.Random(2)
    words = [bytes(source.choices(b"abcdefghijklmnopqrstuvwxyz", k=source.randint(2, 9))) for _ in range(2000)]
    for number in range(count):
        if number % 100 == 0:
            below = folder / f"{number // 10000:03}" / f"{number // 100:05}"
            below.mkdir(parents=True)
        (below / f"file{number:06}.txt").write_bytes(b" ".join(source.choices(words, k=source.randint(10, 150))))


# ---------------------------------------------------------------- programs

class Firn:
    name = "firn"

    def __init__(self, place):
        self.repository = place / "firn"
        self.env = {"FIRN_REPOSITORY": str(self.repository), "FIRN_PASSWORD": "bench", "FIRN_CACHE_DIR": str(place / "firn-cache")}

    def init(self): return run([FIRN, "init", "-q"], self.env)
    def backup(self, tree): return run([FIRN, "backup", "-q", tree], self.env)
    def restore(self, target): return run([FIRN, "restore", "-q", "latest", "--target", target], self.env)
    def check(self): return run([FIRN, "check", "-q", "--read-data"], self.env)

    def mount(self, point):
        return Mount([FIRN, "mount", point], self.env, point / "latest", point)

    def mount_one(self, point, tree):
        return Mount([FIRN, "mount", point, f"latest:{tree}"], self.env, point, point)


class Restic:
    name = "restic"

    def __init__(self, place):
        self.repository = place / "restic"
        self.env = {"RESTIC_REPOSITORY": str(self.repository), "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(place / "restic-cache")}

    def init(self): return run(["restic", "init", "-q", "--repository-version", "2"], self.env)
    def backup(self, tree): return run(["restic", "backup", "-q", tree], self.env)
    def restore(self, target): return run(["restic", "restore", "-q", "latest", "--target", target], self.env)
    def check(self): return run(["restic", "check", "-q", "--read-data"], self.env)

    def mount(self, point):
        return Mount(["restic", "mount", point], self.env, point / "snapshots/latest", point)


class Borg:
    name = "borg"

    def __init__(self, place):
        self.repository = place / "borg"
        self.count = 0
        self.env = {"BORG_REPO": str(self.repository), "BORG_PASSPHRASE": "bench", "BORG_BASE_DIR": str(place / "borg-base"),
                    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}

    def init(self): return run(["borg", "init", "--encryption=repokey-blake2"], self.env)

    def backup(self, tree):
        self.count += 1
        return run(["borg", "create", "--compression", "zstd,3", f"::a{self.count}", tree], self.env)

    def restore(self, target):
        os.makedirs(target, exist_ok=True)
        return run(["borg", "extract", f"::a{self.count}"], self.env, cwd=target)

    def check(self): return run(["borg", "check", "--verify-data"], self.env)

    def mount(self, point):
        return Mount(["borg", "mount", "-f", "::", point], self.env, point / f"a{self.count}", point)


class Mount:
    """A mount in the foreground, for as long as a `with` lasts; its peak memory is known afterwards."""

    def __init__(self, command, env, tree, point):
        self.command, self.env, self.tree, self.point = command, env, tree, point
        self.rss = 0

    def __enter__(self):
        self.point.mkdir(exist_ok=True)
        begin = time.monotonic()
        self.child = subprocess.Popen(self.command, env=dict(os.environ, **self.env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (os.path.ismount(self.point) and self.tree.exists()):
            if self.child.poll() is not None or time.monotonic() - begin > 120:
                raise RuntimeError(f"{self.command} did not mount")
            time.sleep(0.005)
        self.ready = time.monotonic() - begin
        return self

    def __exit__(self, *_):
        with open(f"/proc/{self.child.pid}/status") as status:
            self.rss = max((int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")), default=0)
        subprocess.run(["fusermount3", "-u", str(self.point)], check=False)
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.send_signal(signal.SIGKILL)
            self.child.wait()


# ---------------------------------------------------------------- questions

def programs(place):
    return [program(place) for program in (Firn, Restic, Borg) if program is Firn or shutil.which(program.name)]


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


def copy(tree, target):
    shutil.rmtree(target, ignore_errors=True)
    figures = run(["cp", "-a", tree, target])
    shutil.rmtree(target, ignore_errors=True)
    return figures


def mounts(place, label, tree, runs):
    """cp -a out of the mount, against restore; find over it."""
    note(f"{label}: find -ls", "limit", best(runs, lambda: run(["find", tree, "-ls"])), "the tree itself, warm")
    for program in programs(place):
        program.count = getattr(program, "count", 0) or 1
        try:
            with program.mount(place / "mnt") as mounted:
                at = Path(str(mounted.tree) + str(tree))
                note(f"{label}: mount ready", program.name, (mounted.ready, 0, 0))
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


def unchanged(place, label, tree, runs):
    note(f"{label}: unchanged", "limit", best(runs, lambda: run(["find", tree, "-newermt", "2100-01-01"])), "lstat all")
    for program in programs(place):
        program.count = getattr(program, "count", 0) + 10
        program.backup(tree)
        note(f"{label}: unchanged", program.name, best(runs, lambda: program.backup(tree)))


def table():
    lines = ["| question | program | wall s | × limit | × best other | CPU s | peak MiB | |", "|---|---|---|---|---|---|---|---|"]
    for question in dict.fromkeys(row[0] for row in results):
        rows = [row for row in results if row[0] == question]
        limit = next((row[2] for row in rows if row[1] == "limit"), None)
        for row in rows:
            others = [other[2] for other in rows if other[1] not in ("limit", row[1])]
            of_limit = f"{row[2] / limit:.2f}" if limit and row[1] != "limit" else ""
            of_other = f"{row[2] / min(others):.2f}" if others and row[1] == "firn" else ""
            lines.append(f"| {row[0]} | {row[1]} | {row[2]:.2f} | {of_limit} | {of_other} | {row[3]:.2f} | {row[4]:.0f} | {row[5]} |")
    return "\n".join(lines)


def floors(small):
    """What must hold: no slower than the others, smaller than the others, within the memory bound."""
    def figure(question, program, column=2):
        return next((row[column] for row in results if row[0] == question and row[1] == program), None)
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
        if "cp -a from mount" in question and not small:
            restore = figure(question.split(":")[0] + ": restore", "firn")
            if firn and restore and firn > 2 * restore:
                failures.append(f"{question}: {firn:.2f} against {restore:.2f} of firn's restore, more than twice")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a twentieth of the data, memory floors only: shows that it runs")
    parser.add_argument("--keep", action="store_true", help="leave the data where it is")
    parser.add_argument("--only", help="noise, source or files")
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
        if arguments.only in (None, "noise"):
            work = fresh(place, "noise-work")
            noise(place / "noise", 1024 // share)
            first_backup(work, "noise", place / "noise", runs)
            shutil.rmtree(work)
            shutil.rmtree(place / "noise")
        if arguments.only in (None, "source"):
            work = fresh(place, "source-work")
            source_tree(place / "source", 1024 // share)
            first_backup(work, "source", place / "source", runs)
            mounts(work, "source", place / "source", runs)
            unchanged(work, "source", place / "source", runs)
            shutil.rmtree(work)
            shutil.rmtree(place / "source")
        if arguments.only in (None, "files"):
            work = fresh(place, "files-work")
            many_files(place / "files", 100_000 // share)
            first_backup(work, "100,000 files" if share == 1 else "5,000 files", place / "files", runs)
            label = "100,000 files" if share == 1 else "5,000 files"
            mounts(work, label, place / "files", runs)
            unchanged(work, label, place / "files", runs)
    finally:
        if not arguments.keep:
            shutil.rmtree(place, ignore_errors=True)
    floors(arguments.small)
    text = table()
    print("\n" + text)
    if arguments.out:
        Path(arguments.out).write_text(text + "\n")
    for failure in failures:
        print("FLOOR MISSED:", failure)
    sys.exit(1 if failures else 0)


main()

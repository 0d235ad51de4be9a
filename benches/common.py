"""What all questions of the benches need: running a program and measuring it, data, firn, restic and borg, mounts, the table.

Not for: questions (see `peers.py`, `mounts.py`).
"""
import os, random, shutil, signal, stat, subprocess, time
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


def programs(place):
    return [program(place) for program in (Firn, Restic, Borg) if program is Firn or shutil.which(program.name)]


def copy(tree, target):
    shutil.rmtree(target, ignore_errors=True)
    figures = run(["cp", "-a", tree, target])
    shutil.rmtree(target, ignore_errors=True)
    return figures


def figure(question, program, column=2):
    return next((row[column] for row in results if row[0] == question and row[1] == program), None)


def at_most(question, bound, what):
    """A floor: firn's figure must not be above this."""
    firn = figure(question, "firn")
    if firn and bound and firn > bound:
        failures.append(f"{question}: {firn:.2f}, more than {bound:.2f} ({what})")


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

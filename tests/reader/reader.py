#!/usr/bin/env python3
"""An independent reader of firn repositories, written from firn-repository(7) alone.

It is for: proving that the page suffices to get everything back without firn, checking firn against a
second implementation, and showing the format in code (bytes and decoders are in firnformat.py, finding
and restoring here). It is NOT for: daily restores (it is slow and keeps the index in memory), writing
to a repository, or the coordination of writers and pruners. Birth times and file flags are listed, but
not restored.

Names are bytes everywhere. Python 3.9+ on Linux; the packages are in requirements.txt.
"""
import argparse, collections, hashlib, mmap, os, re, stat, sys
from firnformat import *


# --- the repository -----------------------------------------------------------------------------
N64, N32 = "[0-9a-f]{64}", "[0-9a-f]{32}"
SHAPES = [(r"config/[1-9][0-9]*", CONFIG), ("keys/" + N64, 2), (r"data/([0-9a-f]{2})/\1[0-9a-f]{62}", DATA),
          (r"tree/([0-9a-f]{2})/\1[0-9a-f]{62}", TREE), ("index/" + N64, INDEX), ("snapshots/" + N64, SNAPSHOT),
          ("pins/" + N32, PIN), ("marks/" + N32 + "-[0-9]+", MARK), ("tombs/" + N64, TOMB), ("revokes/" + N32, REVOKE),
          ("holds/" + N64, HOLD), ("damage/" + N64, DAMAGE)]
HASHED = (2, DATA, TREE, INDEX, SNAPSHOT)
ID_FIELD = {PIN: "session", REVOKE: "session", MARK: "prune", TOMB: "snapshot", HOLD: "snapshot", DAMAGE: "pack"}
Pack = collections.namedtuple("Pack", "kind epoch frames")   # frames: [(offset, length)]


class Repository:
    def __init__(self, path, mode="index"):
        self.path, self.mode, self.secrets, self.problems, self.notes = os.path.abspath(os.fsencode(path)), mode, None, [], []
        self.objects = {}                                    # kind -> sorted names (paths below the repository)
        self.verified, self.last_totals, self.tombs = set(), NO_TOTALS, set()
        self.packs, self.places = {}, {}                     # name -> Pack; chunk id -> [(pack name, block)]
        self.sealed, self.blocks = collections.OrderedDict(), collections.OrderedDict()
        for folder, dirs, files in os.walk(self.path):
            rel = os.path.relpath(folder, self.path)
            if rel == b".":
                dirs[:] = [d for d in dirs if d != b"x"]
            for f in files:
                name = os.fsdecode(os.path.join(rel, f))
                for shape, kind in SHAPES:
                    if re.fullmatch(shape, name):
                        self.objects.setdefault(kind, []).append(name)
        for names in self.objects.values():
            names.sort()

    def names(self, kind):
        return self.objects.get(kind, [])

    def problem(self, e):
        self.problems.append(str(e))
        print("reader: PROBLEM: %s" % e, file=sys.stderr)

    def note(self, text):
        self.notes.append(text)
        print("reader: note: %s" % text, file=sys.stderr)

    def each(self, items, action):
        """Runs action for every item; a damaged one is reported and does not stop the others."""
        for item in items:
            try:
                action(item)
            except (Damage, Refused, OSError) as e:
                self.problem(e)

    def read(self, name, limit):
        with open(os.path.join(self.path, os.fsencode(name)), "rb") as f:
            size = os.fstat(f.fileno()).st_size
            if not 0 < size <= limit:
                raise Damage(name, 0, "size %d" % size)
            return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)

    def verify_name(self, name):
        data = self.read(name, padme(MAX_PACK))
        if HASH(data).hex() != name.rsplit("/", 1)[1]:
            raise Damage(name, 0, "the stored bytes do not have the hash that the name says")

    def unlock(self, password, key_file):
        refused, tried = [], 0
        for name in self.names(2):
            if tried == 64:
                break
            try:
                self.verify_name(name)
                slot = Slot(name, bytes(self.read(name, 4096)))
                tried += 1
                self.secrets = slot.open(password, key_file)
            except (Damage, Refused) as e:
                refused.append(str(e))
            if self.secrets:
                return self.gather(password, key_file)
        raise Refused("no key slot opens with this password and key file; %d tried. %s" % (tried, "; ".join(refused)))

    def gather(self, password, key_file):
        """Rotations that were cut off, or did not see each other, leave slots with different secrets side by side."""
        for name in self.names(2)[:64]:
            try:
                self.verify_name(name)
                slot = Slot(name, bytes(self.read(name, 4096)))
                said = slot.description(self.secrets)
                if not set(said["secrets"]) <= self.secrets.ids() if said.get("secrets") else said.get("epoch", 0) > 0:
                    more = slot.open(password, key_file)
                    if more:
                        self.secrets.merge(more)
            except (Damage, Refused):
                pass

    def record(self, name, kind):
        if kind in HASHED:
            self.verify_name(name)
        return Sealed(name, bytes(self.read(name, padme(96 + 48 + MAX_MESSAGE))), kind, self.secrets).record()

    def json(self, name, kind):
        value = parse_json(name, self.record(name, kind))
        version = value.get("version")
        if type(version) is int and version > 1:
            raise Refused("%s has version %d: use a newer reader" % (name, version))
        if version != 1:
            raise Damage(name, 0, "field version is %r" % (version,))
        if kind in ID_FIELD and value.get(ID_FIELD[kind]) != name.split("/")[1].split("-")[0]:
            raise Damage(name, 0, "field %s does not agree with the name" % ID_FIELD[kind])
        return value

    def config(self):
        """The readable config with the highest number, or None."""
        for name in sorted(self.names(CONFIG), key=lambda n: int(n[7:]), reverse=True):
            try:
                value = self.json(name, CONFIG)
            except Damage as e:
                self.problem(e)
                continue
            if value.get("repository") != self.secrets.repo.hex():
                raise Damage(name, 0, "config of another repository")
            unknown = value.get("features", {}).get("incompat", [])
            if unknown:
                raise Refused("features that this reader does not know: %s" % ", ".join(map(str, unknown)))
            return value
        self.note("no readable config")
        return None

    def snapshots(self):
        """{name: snapshot} of those that are not forgotten. A tomb counts when it opens and names its snapshot, unless it was taken back."""
        tombs, undone, out = {}, set(), {}
        def bury(name):
            tomb = self.json(name, TOMB)
            if "undone" in tomb:
                undone.add(tomb["undone"])
            else:
                tombs[tomb["snapshot"]] = HASH(bytes(self.read(name, padme(96 + 48 + MAX_MESSAGE)))).hex()
        self.each(self.names(TOMB), bury)
        def load(name):
            s = self.json(name, SNAPSHOT)
            undone.update((s.get("seen") or {}).get("undone", []))
            if not re.fullmatch(N64, str(s.get("tree"))):
                raise Damage(name, 0, "field tree")
            out[name[10:]] = s
        def forgotten(name):
            return name in tombs and tombs[name] not in undone
        # A forgotten snapshot that cannot be read is no damage, and what it has seen counts all the same.
        for name in self.names(SNAPSHOT):
            if name[10:] in tombs:
                try:
                    load(name)
                except Damage:
                    pass
        self.each((n for n in self.names(SNAPSHOT) if n[10:] not in out and n[10:] not in tombs), load)
        self.each((n for n in self.names(SNAPSHOT) if n[10:] not in out and n[10:] in tombs and not forgotten(n[10:])), load)
        self.tombs = {name for name in tombs if forgotten(name)}
        for name in self.tombs:
            out.pop(name, None)
        return dict(sorted(out.items(), key=lambda i: (str(i[1].get("time")), i[0])))

    def find(self, wanted):
        snaps = self.snapshots()
        hits = list(snaps)[-1:] if wanted == "latest" else [n for n in snaps if n.startswith(wanted)]
        if len(hits) != 1:
            raise Refused("%d snapshots match \"%s\"" % (len(hits), wanted))
        return hits[0], snaps[hits[0]]

    # --- where chunks are: from the index, from contents frames, or from the blocks themselves
    def segments(self):
        """The segments that count: {name: segment}."""
        out = {}
        self.each(self.names(INDEX), lambda n: out.__setitem__(n[6:], read_segment(n, self.record(n, INDEX))))
        for replaced in {r.hex() for s in out.values() for r in s[0]}:
            out.pop(replaced, None)
        return out

    def add_pack(self, name, kind, epoch, lengths, chunks):
        frames, pos = [], 96
        for l in lengths:
            frames.append((pos, l))
            pos += l
        if self.packs.setdefault(name, Pack(kind, epoch, frames)) != Pack(kind, epoch, frames):
            raise Damage("index", 0, "two segments disagree about pack %s" % name)
        for cid, block in chunks:
            places = self.places.setdefault(cid, [])
            if (name, block) not in places:
                places.append((name, block))

    def load_places(self):
        if self.mode == "index":
            for name, (_, packs, chunks) in self.segments().items():
                by_pack = {}
                for cid, pack, block in chunks:
                    by_pack.setdefault(pack, []).append((cid, block))
                self.each(packs.items(), lambda i: self.add_pack(i[0], i[1][0], i[1][1], i[1][4], by_pack.get(i[0], ())))
            return
        for kind in (TREE, DATA):
            def load(path):
                pack, lengths, chunks = self.pack(path.rsplit("/", 1)[1], kind), [], []
                if self.mode == "contents":
                    for block, (frame_len, _, _, ids) in enumerate(pack.contents()):
                        lengths.append(frame_len)
                        chunks += [(cid, block) for cid, _ in ids]
                else:
                    for block, pos, frame_len in pack.walk():
                        lengths.append(frame_len)
                        try:
                            ckind, body, _ = pack.frame(BLOCK, block, pos)
                            chunks += [(cid, block) for cid, _, _ in pack.chunks(ckind, body)]
                        except Damage as e:
                            self.problem(e)
                self.add_pack(path.rsplit("/", 1)[1], kind, pack.epoch, lengths, chunks)
            self.each(self.names(kind), load)

    def pack(self, name, kind):
        """An opened pack; a few stay open. Its name is verified when it is opened."""
        if name not in self.sealed:
            path = "%s/%s/%s" % ("data" if kind == DATA else "tree", name[:2], name)
            if path not in self.names(kind):
                raise Damage(path, 0, "is missing")
            if path not in self.verified:                    # when it fails, intact frames can still be used
                self.verified.add(path)
                self.each([path], self.verify_name)
            self.sealed[name] = Sealed(path, self.read(path, padme(MAX_PACK)), kind, self.secrets)
            while len(self.sealed) > 32:
                self.sealed.popitem(last=False)
        self.sealed.move_to_end(name)
        return self.sealed[name]

    def block(self, name, n):
        """(kind, body, {id: (offset, length)}); the last few are kept."""
        if (name, n) not in self.blocks:
            info, (pos, frame_len) = self.packs[name], self.packs[name].frames[n]
            pack = self.pack(name, info.kind)
            kind, body, got = pack.frame(BLOCK, n, pos)
            if got != frame_len or pack.epoch != info.epoch or (kind == CONTENT) != (info.kind == DATA):
                raise Damage(pack.obj, pos, "block %d has another length, epoch or kind than expected" % n)
            self.blocks[name, n] = kind, body, {cid: (pos, l) for cid, pos, l in pack.chunks(kind, body)}
            while len(self.blocks) > 8:
                self.blocks.popitem(last=False)
        self.blocks.move_to_end((name, n))
        return self.blocks[name, n]

    def chunk(self, cid, kind):
        """The bytes of a chunk, from the first of its places that is intact. Its id has been computed from them."""
        error = Damage("%s chunk %s" % (KIND_WORD[kind], cid.hex()), 0, "no pack holds it")
        for name, n in self.places.get(cid, ()):
            try:
                ckind, body, chunks = self.block(name, n)
                if ckind == kind and cid in chunks:
                    return body[chunks[cid][0]:sum(chunks[cid])]
                error = Damage("pack %s" % name, n, "block does not hold %s chunk %s" % (KIND_WORD[kind], cid.hex()))
            except (Damage, OSError) as e:
                error = e
        raise error

    # --- trees
    def directory(self, pid, expect=None):
        """Yields the entries of a directory in order. expect: (level, first name, entries, totals) from above.
        Their totals are in self.last_totals right after the generator has ended."""
        c = Cursor("tree page %s" % pid.hex(), self.chunk(pid, PAGE))
        c.need(len(c.data) <= MAX_PAGE, "page too long")
        level, last, count, sums = c.u8(), b"", 0, NO_TOTALS
        c.need(level <= 16 and (expect is None or level == expect[0]), "level %d" % level)
        for e in self.leaf(c, expect is None) if level == 0 else self.interior(c, level, expect is None):
            c.need(e.name > last, "names do not ascend at \"%s\"" % show(e.name))
            c.need(count or expect is None or e.name == expect[1], "first name is not the one the page above says")
            last, count, sums = e.name, count + 1, tuple(a + b for a, b in zip(sums, e.totals()))
            yield e
        c.need(expect is None or (count, sums) == expect[2:], "entries or totals are not those the page above says")
        self.last_totals = sums

    def interior(self, c, level, top):
        n, children = c.varint(), []
        c.need(n >= (2 if top else 1), "an interior page with %d children" % n)
        for _ in range(c.count(n, 40)):
            first, cid, count, totals = c.name(), c.raw(32), c.varint(), c.totals()
            c.need(not children or first > children[-1][1], "first names do not ascend")
            children.append((cid, first, count, totals))
        c.end()
        for cid, first, count, totals in children:
            yield from self.directory(cid, (level - 1, first, count, totals))

    def leaf(self, c, may_be_empty):
        owners = [(c.varint(), c.varint(), c.raw(c.u8()), c.raw(c.u8())) for _ in range(c.count(c.varint(), 4))]
        sets = []
        for _ in range(c.count(c.varint(), 2)):
            where = c.u8()
            c.need(where <= 1, "where an attribute set stands")
            if where:
                sets.append(c.fmt("32s") + (c.varint(),))
            else:
                n = c.varint()
                c.need(1 <= n <= 1024, "length of an attribute set")
                sets.append(c.raw(n))
        c.need(len(set(owners)) == len(owners) and len(set(sets)) == len(sets), "an owner or attribute set stands twice")
        n, used = c.varint(), [0, 0]
        c.need(n or may_be_empty, "an empty leaf below another page")
        entries = []
        for _ in range(c.count(n, 7)):
            e = Entry(c, owners, sets, used)
            entries.append(e)
        c.need(used == [len(owners), len(sets)], "an unused owner or attribute set")
        c.end()
        return entries

    def attributes(self, e):
        """[(name, value)] of an entry."""
        if e.attrs is None:
            return []
        data = e.attrs
        if isinstance(data, tuple):
            data = self.chunk(e.attrs[0], ATTRS)
            if len(data) != e.attrs[1]:
                raise Damage("attribute set %s" % e.attrs[0].hex(), 0, "length")
        return read_attributes("attribute set of \"%s\"" % show(e.name), data)

    def list_page(self, pid, level=None, above=None):
        """Yields the extents of a list page; above: (bytes, extents) as the page above says."""
        c = Cursor("list page %s" % pid.hex(), self.chunk(pid, LIST))
        c.need(len(c.data) <= MAX_PAGE, "page too long")
        lv, n, size, count = c.u8(), c.varint(), 0, 0
        c.need(lv <= 16 and (level is None or lv == level) and n >= (2 if lv and level is None else 1), "level or number of items")
        if lv == 0:
            items = iter(read_extents(c, n))
        else:
            children = [(c.raw(32), c.varint(), c.varint()) for _ in range(c.count(n, 34))]
            items = (x for cid, b, k in children for x in self.list_page(cid, lv - 1, (b, k)))
        c.end()
        for x in items:
            size, count = size + x.length, count + 1
            yield x
        c.need(above is None or (size, count) == above, "bytes or extents are not those the page above says")

    def extents(self, e):
        """Yields (offset, Extent) of a file whose content is not in the entry."""
        pos, hole, count, obj = 0, False, 0, "extents of \"%s\"" % show(e.name)
        for x in e.extents if e.list is None else self.list_page(e.list):
            if (hole and x.id is None) or pos + x.length > e.size:
                raise Damage(obj, pos, "two holes touch, or more than the size")
            yield pos, x
            pos, hole, count = pos + x.length, x.id is None, count + 1
        if pos != e.size or (e.list is not None and count <= 32):
            raise Damage(obj, pos, "%d extents cover %d bytes of %d" % (count, pos, e.size))

    def content(self, x):
        data = self.chunk(x.id, CONTENT)
        if len(data) != x.length:
            raise Damage("content chunk %s" % x.id.hex(), 0, "%d bytes, the extent says %d" % (len(data), x.length))
        return data

    def root(self, name, snap):
        entries = list(self.directory(bytes.fromhex(snap["tree"])))
        if len(entries) != 1 or entries[0].name != b"root" or entries[0].type != DIR:
            raise Damage("snapshots/" + name, 0, "the tree is not one directory named root")
        keys = ("entries", "files", "bytes", "linked", "attributed")
        if tuple(snap.get("totals", {}).get(k) for k in keys) != entries[0].below:
            raise Damage("snapshots/" + name, 0, "totals")
        return entries[0]

    def walk(self, root):
        """Yields ("enter" | "entry" | "leave", path as a tuple of names, entry), depth first, without recursion."""
        yield "enter", (), root
        stack = [(self.directory(root.top), (), root)]
        while stack:
            gen, path, d = stack[-1]
            try:
                e = next(gen, None)
                if e is None and self.last_totals != d.below:
                    raise Damage("directory \"%s\"" % show(b"/".join(path)), 0, "totals are not those of its entry")
                if e is not None and len(path) >= 4096:
                    raise Damage("directory", 0, "deeper than 4096")
            except (Damage, OSError) as error:               # the rest of this directory is lost, not more
                self.problem("below \"/%s\": %s" % (show(b"/".join(path)), error))
                e = None
            if e is None:
                stack.pop()
                yield "leave", path, d
            elif e.type == DIR:
                yield "enter", path + (e.name,), e
                stack.append((self.directory(e.top), path + (e.name,), e))
            else:
                yield "entry", path + (e.name,), e


def linked(e):
    """Names of one file have the same value; None for what has only one name."""
    if not e.link:
        return None
    body = (e.size, tuple(e.extents), e.list, e.inline, e.target, getattr(e, "device", None))
    return repr((e.link, e.type, e.mode, e.owner, e.mtime, e.birth, e.attrs, e.file_flags, body))


# --- restore ------------------------------------------------------------------------------------
class Restore:
    """Everything is made by name in the current directory, so that no depth and no path is too long."""
    def __init__(self, repo, target):
        self.repo, self.links, self.root = repo, {}, os.geteuid() == 0
        os.makedirs(target, exist_ok=True)
        if os.listdir(target):
            raise Refused("\"%s\" is not empty" % target)
        os.chdir(target)
        self.fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY)

    def run(self, root):
        lost = 0                                             # depth below a directory that could not be made
        for what, path, e in self.repo.walk(root):
            self.path = path
            try:
                if what == "enter":
                    if lost or not path:
                        lost += 1 if lost else 0
                        continue
                    lost = 1                                 # until both calls have succeeded
                    os.mkdir(e.name, 0o700)
                    os.chdir(e.name)
                    lost = 0
                elif what == "leave":
                    if lost:
                        lost -= 1
                        continue
                    if path:
                        try:
                            os.chdir("..")
                        except OSError as error:             # anything else would go to the wrong place
                            raise SystemExit("reader: lost in the target: %s" % error)
                    self.metadata(e, e.name if path else b".")
                elif not lost:
                    self.make(e)
            except (Damage, OSError, OverflowError, ValueError) as error:
                self.repo.problem("\"/%s\": %s" % (show(b"/".join(path)), error))

    def make(self, e):
        if e.flags & F_UNRELIABLE:
            self.repo.note("\"/%s\" changed while it was read" % show(b"/".join(self.path)))
        if linked(e) in self.links:
            os.link(b"/".join(self.links[linked(e)]), e.name, src_dir_fd=self.fd, follow_symlinks=False)
            return
        if e.type == FILE:
            self.file(e)
        elif e.type == SYMLINK:
            os.symlink(e.target, e.name)
        elif e.type == FIFO:
            os.mkfifo(e.name, 0o600)
        elif self.root:
            os.mknod(e.name, 0o600 | (stat.S_IFCHR if e.type == CHARDEV else stat.S_IFBLK), os.makedev(*e.device))
        else:
            self.repo.note("\"/%s\" is a device: only root can make it" % show(b"/".join(self.path)))
            return
        if e.link:
            self.links[linked(e)] = self.path
        self.metadata(e, e.name)

    def file(self, e):
        fd = os.open(e.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(fd, e.size)
            for pos, x in [(0, None)] if e.inline is not None else self.repo.extents(e):
                data = memoryview(e.inline if x is None else self.repo.content(x) if x.id else b"")
                while data:
                    n = os.pwrite(fd, data, pos)
                    data, pos = data[n:], pos + n
        except (Damage, OSError) as error:                   # keep what there is, but say so
            self.repo.problem("\"/%s\" is incomplete: %s" % (show(b"/".join(self.path)), error))
        finally:
            os.close(fd)

    def metadata(self, e, name):
        """Owner, attributes, mode, time: in this order, since each may undo one that stands behind it."""
        def attempt(action, *args, **kw):
            try:
                action(*args, **kw)
            except (OSError, OverflowError) as error:
                (self.repo.problem if self.root else self.repo.note)("\"/%s\": %s: %s" % (show(b"/".join(self.path)), action.__name__, error))
        if self.root:
            attempt(os.chown, name, e.owner[0], e.owner[1], follow_symlinks=False)
        attributes = []
        self.repo.each([e], lambda e: attributes.extend(self.repo.attributes(e)))
        for key, value in attributes:
            attempt(os.setxattr, name, key, value, follow_symlinks=False)
        if e.type != SYMLINK:
            attempt(os.chmod, name, e.mode)
        attempt(os.utime, name, ns=(e.mtime, e.mtime), follow_symlinks=False)


# --- check --------------------------------------------------------------------------------------
class Check:
    """Opens everything there is, and compares what says the same thing twice."""
    def __init__(self, repo):
        self.repo, self.blocks, self.ids = repo, {}, {}      # pack -> its blocks; pack -> its blocks' chunk ids
        self.held = {}                                       # chunk id -> (kind, length)

    def run(self):
        repo = self.repo
        def description(name):
            repo.verify_name(name)
            Slot(name, bytes(repo.read(name, 4096))).description(repo.secrets)
        repo.each(repo.names(2), description)
        for kind in (CONFIG, PIN, MARK, TOMB, REVOKE, HOLD, DAMAGE):
            repo.each(repo.names(kind), lambda name: repo.json(name, kind))
        for kind in (TREE, DATA):
            repo.each(repo.names(kind), lambda path: self.pack(path, kind))
        for name, segment in repo.segments().items():
            repo.each(segment[1].items(), lambda i: self.indexed(name, i[0], *i[1]))
            for cid, pack, n in segment[2]:
                blocks = self.blocks.get(pack)
                if blocks is not None and (n >= len(blocks) or cid not in self.ids[pack][n]):
                    repo.problem("index/%s: chunk %s is not in block %d of pack %s" % (name, cid.hex(), n, pack))
        snaps = repo.snapshots()
        repo.each((n for n in repo.names(SNAPSHOT) if n[10:] in repo.tombs), repo.verify_name)
        repo.each(snaps.items(), lambda i: self.tree(repo.root(*i)))
        for name, s in snaps.items():                        # hidden or rolled back snapshots
            seen = [s.get("previous"), s.get("parent")] + [h.get("snapshot") for h in (s.get("heads") or {}).values()]
            for other in {x for x in seen if x} - set(snaps) - repo.tombs:
                repo.note("snapshots/%s knows snapshot %s, which is neither here nor forgotten" % (name, other))

    def pack(self, path, kind):
        pack, blocks, end, name = self.repo.pack(path.rsplit("/", 1)[1], kind), [], 96, path.rsplit("/", 1)[1]
        if len(pack.data) > MAX_PACK:
            raise Damage(path, 0, "larger than 1 GiB")
        self.blocks[name], self.ids[name] = blocks, []
        for n, pos, _ in pack.walk():
            ckind, body, flen = pack.frame(BLOCK, n, pos)
            if (ckind == CONTENT) != (kind == DATA):
                raise Damage(path, pos, "chunk kind %d" % ckind)
            blocks.append((flen, ckind, len(body), [(cid, l) for cid, _, l in pack.chunks(ckind, body)]))
            self.held.update((cid, (ckind, l)) for cid, l in blocks[-1][3])
            self.ids[name].append({cid for cid, _ in blocks[-1][3]})
            end = pos + flen
        if end != pack.contents_offset():
            raise Damage(path, end, "the blocks end here, the contents frame is elsewhere: a damaged block?")
        if pack.contents() != blocks:
            raise Damage(path, end, "the contents frame does not say what is in the blocks")

    def indexed(self, segment, name, kind, epoch, size, sha, lengths):
        if name not in self.blocks:
            self.repo.note("index/%s names pack %s, which the store lacks" % (segment, name))
            return
        pack = self.repo.pack(name, kind)
        if list(lengths) != [b[0] for b in self.blocks[name]] or epoch != pack.epoch or size != len(pack.data) \
                or sha not in (None, hashlib.sha256(pack.data).digest()):
            raise Damage("index/" + segment, 0, "frame lengths, epoch, size or SHA-256 of pack %s" % name)

    def tree(self, root):
        groups = {}
        def one(e):
            self.repo.attributes(e)
            if e.link and groups.setdefault(e.link, linked(e)) != linked(e):
                self.repo.note("hard-link group %d: its entries differ, so they are files of their own" % e.link)
            for pos, x in self.repo.extents(e) if e.type == FILE and e.inline is None else ():
                if x.id and self.held.get(x.id) != (CONTENT, x.length):
                    raise Damage("\"%s\"" % show(e.name), pos, "content chunk %s is missing or of another length" % x.id.hex())
        for what, _, e in self.repo.walk(root):
            if what != "leave":
                self.repo.each([e], one)


# --- commands -----------------------------------------------------------------------------------
def list_tree(repo, root):
    for what, path, e in repo.walk(root):
        if what == "leave":
            continue
        words = ["-dlpcb"[e.type - 1] + "%04o" % e.mode, "%d:%d" % e.owner[:2], str(e.size), "%d.%09d" % divmod(e.mtime, 10**9),
                 "/" + show(b"/".join(path))]
        words += ["-> " + show(e.target)] if e.target else []
        words += ["%d,%d" % e.device] if e.type in (CHARDEV, BLOCKDEV) else []
        words += ["[link %d of %d]" % (e.link, e.nlink)] if e.link else []
        words += ["[born %d.%09d]" % divmod(e.birth, 10**9)] if e.birth is not None else []
        words += ["[flags %x]" % e.file_flags] if e.file_flags is not None else []
        words += [w for bit, w in ((F_WAY, "[way-point]"), (F_UNRELIABLE, "[changed while read]")) if e.flags & bit]
        repo.each([e], lambda e: words.extend("{%s=%s}" % (show(k), v.hex()) for k, v in repo.attributes(e)))
        print(*words)

def run(args):
    mode = "contents" if args.no_index else "frames" if args.frames_only else "index"
    repo = Repository(args.repo, mode)
    if args.command == "verify-names":                       # needs no key
        repo.each([n for kind in HASHED for n in repo.names(kind)], repo.verify_name)
        return repo
    password = key_file = None
    if args.password_file:
        with open(args.password_file, "rb") as f:            # "without a trailing line end": one LF or CR LF
            password = re.sub(rb"\r?\n\Z", b"", f.read())
    if args.key_file:
        with open(args.key_file, "rb") as f:
            key_file = f.read()
    repo.unlock(password, key_file)
    repo.config()
    if args.command == "list" and not args.snapshot:
        for name, s in repo.snapshots().items():
            print(name, s.get("time"), s.get("host"), *s.get("paths", []))
        return repo
    repo.load_places()
    if args.command == "check":
        Check(repo).run()
    else:
        root = repo.root(*repo.find(args.snapshot))
        list_tree(repo, root) if args.command == "list" else Restore(repo, args.target).run(root)
    return repo

def main():
    p = argparse.ArgumentParser(description="Reads a firn repository without firn.")
    p.add_argument("repo")
    p.add_argument("--password-file")
    p.add_argument("--key-file")
    p.add_argument("--no-index", action="store_true", help="find chunks by the packs' contents frames")
    p.add_argument("--frames-only", action="store_true", help="find chunks by walking the packs' block frames")
    sub = p.add_subparsers(dest="command", required=True)
    sub.add_parser("list", help="snapshots, or the entries of one").add_argument("snapshot", nargs="?")
    r = sub.add_parser("restore", help="a snapshot (the start of its name, or latest) into an empty folder")
    r.add_argument("snapshot")
    r.add_argument("target")
    sub.add_parser("check", help="everything")
    sub.add_parser("verify-names", help="the names of all objects; needs no key")
    try:
        repo = run(p.parse_args())
    except (Refused, Damage, OSError) as e:
        sys.exit("reader: %s" % e)
    print("reader: %d problems, %d notes" % (len(repo.problems), len(repo.notes)), file=sys.stderr)
    return 1 if repo.problems else 0


if __name__ == "__main__":
    sys.exit(main())

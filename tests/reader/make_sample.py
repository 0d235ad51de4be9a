#!/usr/bin/env python3
"""Writes a tiny firn repository from firn-repository(7) alone, and compares what a reader restored from it.

It is for: testing reader.py without firn, and firn against bytes that firn did not write. It is NOT a backup
program: the "files" are made up here, pages are cut where it suits the test (readers must not care), and
whoever knows the seed knows all secrets.

    make_sample.py REPO [--seed TEXT]         REPO must not exist; the password is in REPO/x/password, the key
                                              file (for the second slot) is REPO/x/keyfile; prints the snapshot
    make_sample.py --compare TARGET [...]     is TARGET what a reader should have restored?
"""
import argparse, hashlib, itertools, os, stat, struct, sys
import zstandard
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as aead_seal
from firnformat import *

PASSWORD, KEY_FILE = "geheim, naïve".encode(), b"\0key file\n"
NOW = "2024-05-06T07:08:09Z"


def Random(seed):
    """A function for reproducible "random" bytes: each call gives the next n."""
    key, calls = KDF("firn sample randomness", seed.encode()), itertools.count()
    return lambda n: H(key, struct.pack("<Q", next(calls)), n)


# --- primitives, the writing way ----------------------------------------------------------------
def varint(v):
    return bytes([v]) if v < 128 else bytes([v & 127 | 128]) + varint(v >> 7)

def svarint(v):
    return varint((v << 1) if v >= 0 else ((-v) << 1) - 1)

def u8bytes(b): return bytes([len(b)]) + b
def u32(*values): return struct.pack("<%dI" % len(values), *values)


class Writer:
    def __init__(self, path, seed):
        self.path, self.rand = path, Random(seed)
        (self.repo, self.chunk_id, self.chunker, self.metadata, self.dedup, self.signing) = (self.rand(32) for _ in range(6))
        self.content = {0: self.rand(32), 3: self.rand(32)}
        self.twin = self.rand(32)                            # another secret of epoch 3
        self.id_keys = {k: KDF("firn v1 chunk id " + w, self.chunk_id) for k, w in KIND_WORD.items()}

    def put(self, folder, data, name=None):
        name = name or HASH(data).hex()
        full = os.path.join(self.path, folder, name[:2] if folder in ("data", "tree") else "", name)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "xb") as f:
            f.write(data)
        return name

    def slot(self, password, key_file, label, content):
        content = sorted(content)
        plain = self.repo + self.chunk_id + self.chunker + self.metadata + self.dedup + self.signing + struct.pack("<H", len(content))
        plain += b"".join(struct.pack("<H", e) + s for e, s in content)
        plain += bytes(-len(plain) % 512)
        ids = ["%d:%s" % (e, KDF("firn v1 content secret id", s + self.repo + struct.pack("<H", e))[:4].hex()) for e, s in content]
        about = json.dumps({"label": label, "created": NOW, "host": "sample", "user": "nobody", "epoch": content[-1][0], "secrets": ids}).encode()
        about += b" " * (-len(about) % 256)
        costs = (64, 1, 1) if password is not None else (0, 0, 0)
        needs = (password is not None) | (key_file is not None) << 1
        head = MAGIC + struct.pack("<BBBBIIIHHI", 1, 2, needs, 0, *costs, len(plain), len(about), 0) + self.rand(32)
        P = hash_secret_raw(password, head[32:], costs[1], costs[0], costs[2], 32, ArgonType.ID, 0x13) if needs & 1 else bytes(32)
        F = HASH(key_file) if needs & 2 else bytes(32)
        head += KDF("firn v1 key slot commitment", P + F + head)
        n1, n2 = self.rand(24), self.rand(24)
        data = head + n1 + aead_seal(plain, head, n1, KDF("firn v1 key slot", P + F + head[:64]))
        self.put("keys", data + n2 + aead_seal(about, head, n2, KDF("firn v1 key slot description", self.metadata + self.repo)))

    def record(self, folder, kind, body, name=None, codec=0):
        o = Object(self, kind)
        data = o.header + o.frame(RECORD, 0, body, codec)
        return self.put(folder, data + H(o.Km, b"padding", padme(len(data)) - len(data)), name)

    def json(self, folder, kind, value, name=None, codec=0):
        return self.record(folder, kind, json.dumps(value).encode(), name, codec)


class Object:
    """Header and keys of a new object, and its frames."""
    def __init__(self, w, kind, epoch=0, twin=False):
        self.w = w
        start = MAGIC + struct.pack("<BBHBBH", 1, kind, epoch, 1, 0, 0) + bytes(16) + w.rand(32)
        ikm = (w.twin if twin else w.content[epoch] if kind == DATA else w.metadata) + w.repo + start
        self.header = start + KDF("firn v1 object commitment", ikm)
        K = KDF("firn v1 object key", ikm)
        self.Ke, self.Km, self.Kn = KDF("firn v1 seal", K), KDF("firn v1 mask", K), KDF("firn v1 nonce", K)

    def frame(self, tag, n, body, codec, kind=0):
        packed = zstandard.ZstdCompressor(level=3, write_content_size=n % 2 == 0).compress(body) if codec else body
        message = struct.pack("<BBHI", codec, kind, 0, len(body)) + packed
        A = bytes([tag]) + self.w.repo + self.header + struct.pack("<Q", n)
        nonce, L = H(self.Kn, A + message)[:24], len(message)
        return xor(struct.pack("<I", L), mask(self.Km, tag, n)) + check(self.Km, tag, n, L)[:4] + nonce + aead_seal(message, A, nonce, self.Ke)


class PackWriter:
    """Collects chunks into blocks; chunk() may be called for the current block only."""
    def __init__(self, w, kind, epoch=0, twin=False):
        self.w, self.kind, self.epoch, self.o = w, kind, epoch, Object(w, kind, epoch, twin)
        self.frames, self.table, self.current, self.ids = [], [], {}, []

    def chunk(self, kind, data):
        cid = H(self.w.id_keys[kind], data)
        if cid not in [i for i, _ in self.ids]:
            self.current.setdefault(kind, {})[cid] = data
            self.ids.append((cid, None))
        return cid

    def flush(self, codec, pad=0):
        """One block for each kind of chunk that has come since the last flush."""
        for kind, chunks in self.current.items():
            body = u32(len(chunks), *map(len, chunks.values())) + b"".join(chunks.values()) + bytes(pad)
            frame = self.o.frame(BLOCK, len(self.frames), body, codec, kind)
            self.table.append(struct.pack("<IBII", len(frame), kind, len(body), len(chunks))
                              + b"".join(i + u32(len(d)) for i, d in chunks.items()))
            self.ids = [(i, len(self.frames) if i in chunks else b) for i, b in self.ids]
            self.frames.append(frame)
        self.current = {}

    def finish(self):
        """Puts the pack; (name, kind, epoch, stored bytes, frame lengths, [(id, block)]) for the index."""
        o, data = self.o, self.o.header + b"".join(self.frames)
        offset = len(data)
        data += o.frame(CONTENTS, 0, u32(len(self.table)) + b"".join(self.table), 1)
        data += H(o.Km, b"padding", padme(len(data) + 16) - len(data) - 16)
        data += xor(struct.pack("<Q", offset), mask(o.Km, 4, 0)) + check(o.Km, 4, 0, offset)[:8]
        name = self.w.put("data" if self.kind == DATA else "tree", data)
        return name, self.kind, self.epoch, data, [len(f) for f in self.frames], self.ids


def index_body(replaced, packs):
    packs = sorted(packs, key=lambda p: p[0])
    out = u32(len(replaced)) + b"".join(sorted(map(bytes.fromhex, replaced))) + u32(len(packs))
    for k, (name, kind, epoch, data, lengths, _) in enumerate(packs):
        sha = hashlib.sha256(data).digest() if k % 2 == 0 else b""
        out += bytes.fromhex(name) + struct.pack("<BBHQ", kind, bool(sha), epoch, len(data)) + sha + u32(len(lengths), *lengths)
    chunks = sorted((cid, k, block) for k, p in enumerate(packs) for cid, block in p[5])
    return out + u32(len(chunks)) + b"".join(i + u32(k, b) for i, k, b in chunks)


# --- the made-up tree: dictionaries; what reader and writer agree on is compared from the same ----
def node(type, mode=0o644, mtime=(1700000000, 123456789), **more):
    return dict(type=type, mode=mode, mtime=mtime, uid=1000, gid=100, user=b"sam", group=b"users", **more)

def sample_tree(rand):
    noise = rand(300000)
    many = [noise[k * 1000:k * 1000 + 1000] if k % 3 else 65536 for k in range(40)]
    several = {b"user.a": b"1", b"user.b": b""}
    docs = {
        b"empty": node(FILE, data=[], birth=(-5, 7)),
        b"inline": node(FILE, 0o444, data=[b"a small file\n"], mtime=(-1, 999999999), attrs=several),
        b"text": node(FILE, data=[b"firn " * 20000, b"and so on\n" * 3000], attrs=several, blocks=256, file_flags=0x40),
        b"holes": node(FILE, data=[65536, noise[:5000], 1 << 30, noise[5000:5001]]),
        b"only-a-hole": node(FILE, data=[1 << 32]),
        b"many-extents": node(FILE, 0o4755, data=many, unreliable=True),
        b"one": node(FILE, data=[noise[:4000]], link=77, nlink=3),
        b"two": node(FILE, data=[noise[:4000]], link=77, nlink=3),
        b"big-attribute": node(FILE, data=[], attrs={b"user.big": noise[:1500]}),
        b"not utf-8 \xff\xfe\n": node(FILE, data=[noise[9000:9200]]),
        b"pipe": node(FIFO, 0o600),
        b"absolute": node(SYMLINK, 0o777, target=b"/etc/\xff", mtime=(5, 5)),
        b"linked-symlink": node(SYMLINK, 0o777, target=b"inline", link=1 << 63, nlink=1),
        b"null": dict(node(CHARDEV, 0o666, device=(1, 3)), uid=0, gid=0, user=b"root", group=b""),
        b"nothing": node(DIR, 0o555, children={}),
    }
    crowd = {b"f%03d" % k: node(FILE, data=[b"%d" % k], mtime=(k, k)) for k in range(300)}
    deep = node(DIR, 0o700, children={b"bottom": node(FILE, data=[b"!"])})
    for _ in range(60):
        deep = node(DIR, 0o700, children={b"d" * 100: deep})
    home = {b"docs": node(DIR, 0o750, children=docs, attrs=several), b"crowd": node(DIR, children=crowd, mode=0o1777, mtime=(2**33, 1)), b"deep": deep}
    return node(DIR, 0o755, children={b"home": node(DIR, 0o755, waypoint=True, children=home)})


class TreeWriter:
    def __init__(self, tree, data):
        self.tree, self.data = tree, data

    def extent(self, x):
        return b"\0" + varint(x) if isinstance(x, int) else b"\1" + varint(len(x)) + self.data.chunk(CONTENT, x)

    def list_page(self, items):
        """Two levels: pages of 15 extents below one top page."""
        top, n = b"", 0
        for k in range(0, len(items), 15):
            part = items[k:k + 15]
            cid = self.tree.chunk(LIST, b"\0" + varint(len(part)) + b"".join(map(self.extent, part)))
            top, n = top + cid + varint(size_of(part)) + varint(len(part)), n + 1
        return self.tree.chunk(LIST, b"\1" + varint(n) + top)

    def body(self, e):
        if e["type"] == FILE:
            data, size = e["data"], size_of(e["data"])
            if len(data) == 1 and not isinstance(data[0], int) and size <= 128:
                return varint(size) + b"\0" + data[0]
            if len(data) <= 32:
                return varint(size) + b"\1" + varint(len(data)) + b"".join(map(self.extent, data))
            return varint(size) + b"\2" + self.list_page(data)
        if e["type"] == DIR:
            top, e["below"] = self.directory(e["children"])
            return varint(4096) + top + b"".join(map(varint, e["below"]))
        if e["type"] == SYMLINK:
            return varint(len(e["target"])) + e["target"]
        return b"".join(map(varint, e.get("device", ())))

    def entry(self, name, e, owners, sets):
        def number(table, item):
            table += [] if item in table else [item]
            return table.index(item)
        body, flags, tail = self.body(e), 0, b""
        owner = number(owners, (e["uid"], e["gid"], e["user"], e["group"]))
        for bit, key, write in ((F_BIRTH, "birth", lambda v: svarint(v[0]) + varint(v[1])),
                                (F_ATTRS, "attrs", lambda v: varint(number(sets, self.attributes(v)))),
                                (F_LINK, "link", lambda v: struct.pack("<Q", v) + varint(e["nlink"])),
                                (F_BLOCKS, "blocks", varint), (F_FLAGS, "file_flags", varint),
                                (F_WAY, "waypoint", lambda v: b""), (F_UNRELIABLE, "unreliable", lambda v: b"")):
            if key in e:
                flags |= bit
                tail += write(e[key])
        own = (1, e["type"] == FILE, size_of(e.get("data", ())), "link" in e, "attrs" in e)
        return (u8bytes(name) + bytes([e["type"]]) + varint(flags) + varint(e["mode"]) + varint(owner) + svarint(e["mtime"][0])
                + varint(e["mtime"][1]) + tail + body), plus(own, e.get("below", NO_TOTALS))

    def attributes(self, attrs):
        data = varint(len(attrs)) + b"".join(u8bytes(k) + varint(len(v)) + v for k, v in sorted(attrs.items()))
        return b"\0" + varint(len(data)) + data if len(data) <= 1024 else b"\1" + self.tree.chunk(ATTRS, data) + varint(len(data))

    def leaf(self, items):
        owners, sets, out, totals = [], [], b"", NO_TOTALS
        for name, e in items:
            data, own = self.entry(name, e, owners, sets)
            out, totals = out + data, plus(totals, own)
        head = varint(len(owners)) + b"".join(varint(u) + varint(g) + u8bytes(a) + u8bytes(b) for u, g, a, b in owners)
        return self.tree.chunk(PAGE, b"\0" + head + varint(len(sets)) + b"".join(sets) + varint(len(items)) + out), totals

    def directory(self, children):
        """Leaves of 40 entries; above them pages of 3 (the last page takes what would stay alone)."""
        items, level, pages = sorted(children.items()), 0, []
        for k in range(0, max(len(items), 1), 40):
            part = items[k:k + 40]
            pages.append((part[0][0] if part else b"", *self.leaf(part), len(part)))
        while len(pages) > 1:
            level, cuts = level + 1, list(range(0, len(pages) - 1, 3))
            groups = [pages[a:b] for a, b in zip(cuts, cuts[1:] + [len(pages)])]
            pages = []
            for g in groups:
                data = bytes([level]) + varint(len(g)) + b"".join(u8bytes(first) + cid + varint(n) + b"".join(map(varint, t)) for first, cid, t, n in g)
                pages.append((g[0][0], self.tree.chunk(PAGE, data), plus(*(p[2] for p in g)), sum(p[3] for p in g)))
        return pages[0][1], pages[0][2]


def size_of(data): return sum(x if isinstance(x, int) else len(x) for x in data)
def plus(*totals): return tuple(map(sum, zip(*totals)))


def write(path, seed):
    os.mkdir(path)
    w = Writer(path, seed)
    for name, data in (("password", PASSWORD + b"\n"), ("keyfile", KEY_FILE)):
        w.put("x", data, name)
    known = sorted(w.content.items())
    # The password opens two slots, each with a secret of epoch 3 that the other lacks.
    w.slot(PASSWORD, None, "a password", known)
    w.slot(PASSWORD, None, "the same password", [known[0], (3, w.twin)])
    w.slot(PASSWORD, KEY_FILE, "both", known + [(3, w.twin)])
    w.slot(None, KEY_FILE, "key file only", known)
    config = {"version": 1, "repository": w.repo.hex(), "created": NOW, "chunker": {"id": 1, "min": 524288, "avg": 1048576, "max": 4194304},
              "data_pack": 16 * MiB, "tree_pack": 4 * MiB, "features": {"incompat": [], "ro_compat": [], "prune_compat": [], "compat": []}}
    for n in "12":
        w.json("config", CONFIG, config, n)

    data, tree = PackWriter(w, DATA, 3), PackWriter(w, TREE)
    root = sample_tree(Random(seed + " content"))
    t = TreeWriter(tree, data)
    top, totals = t.leaf([(b"root", root)])
    # The same content a second time, under the other secret of the epoch: one raw block a chunk, and a padded compressed one.
    data2 = PackWriter(w, DATA, 3, twin=True)
    for k, chunk in enumerate(data.current[CONTENT].values()):
        data2.chunk(CONTENT, chunk)
        if k < 3:
            data2.flush(0)
    data2.flush(1, pad=777)
    data.flush(1)
    tree.flush(1)
    packs = [p.finish() for p in (data, tree, data2)]
    lost = ("ab" * 32, DATA, 0, b"never stored", [96], [(bytes(32), 0)])   # only a replaced segment names it
    old = w.record("index", INDEX, index_body([], [lost, packs[0]]))
    w.record("index", INDEX, index_body([old], packs[:2]))
    w.record("index", INDEX, index_body([], packs[2:]), codec=1)

    writer, session = w.rand(16).hex(), w.rand(16).hex()
    def snapshot(sequence, previous, tree_id, below):
        below = dict(zip(("entries", "files", "bytes", "linked", "attributed"), below))
        return w.json("snapshots", SNAPSHOT, {
            "version": 1, "program": "make_sample 1", "writer": writer, "session": session, "sequence": sequence, "previous": previous,
            "parent": previous, "heads": {writer: {"sequence": sequence - 1, "snapshot": previous}} if previous else {}, "time": NOW,
            "started": NOW, "finished": NOW, "host": "sample", "user": "sam", "uid": 1000, "gid": 100, "paths": ["/home\\\\back\\xff"],
            "tags": ["a", "b"], "label": None, "description": None, "tree": tree_id.hex(), "totals": below, "excludes": [], "summary": {},
            "issues": [], "issues_total": 0, "chunker": 1, "signature": None}, codec=1)
    forgotten = snapshot(1, None, bytes(32), NO_TOTALS)
    w.json("tombs", TOMB, {"version": 1, "snapshot": forgotten, "time": NOW, "host": "sample"}, forgotten)
    w.json("damage", DAMAGE, {"version": 1, "pack": bytes(32).hex(), "time": NOW, "host": "sample"}, bytes(32).hex())
    return snapshot(2, forgotten, top, root["below"])


# --- comparing ----------------------------------------------------------------------------------
def compare(path, e, inodes):
    root = os.geteuid() == 0
    if e["type"] == CHARDEV and not root:
        return
    s = os.lstat(path)
    def same(what, got, wanted):
        if got != wanted:
            raise SystemExit("%r: %s is %r, not %r" % (path, what, got, wanted))
    same("type and mode", s.st_mode, (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR)[e["type"]] | e["mode"])
    same("time", s.st_mtime_ns, e["mtime"][0] * 10**9 + e["mtime"][1])
    same("owner", (s.st_uid, s.st_gid), (e["uid"], e["gid"]) if root else (os.geteuid(), s.st_gid))
    same("attributes", {os.fsencode(k): os.getxattr(path, k, follow_symlinks=False) for k in os.listxattr(path, follow_symlinks=False)}, e.get("attrs", {}))
    if "link" in e:
        same("inode", inodes.setdefault(e["link"], s.st_ino), s.st_ino)
    if e["type"] == FILE:
        same("size", s.st_size, size_of(e["data"]))
        if any(isinstance(x, int) for x in e["data"]) and s.st_blocks * 512 >= s.st_size:
            raise SystemExit("%r has no hole" % path)
        with open(path, "rb") as f:
            for x in e["data"]:                              # that there are holes has been seen above
                same("content", f.seek(x, 1) and b"" if isinstance(x, int) else f.read(len(x)), b"" if isinstance(x, int) else x)
    elif e["type"] == DIR:
        same("names", sorted(os.listdir(path)), sorted(n for n, c in e["children"].items() if root or c["type"] != CHARDEV))
        os.chdir(path)
        for child, c in e["children"].items():
            compare(child, c, inodes)
        os.chdir("..")
    elif e["type"] == SYMLINK:
        same("target", os.readlink(path), e["target"])
    elif e["type"] == CHARDEV:
        same("device", (os.major(s.st_rdev), os.minor(s.st_rdev)), e["device"])


def main():
    p = argparse.ArgumentParser(description="Writes a tiny firn repository, or compares what was restored from it.")
    p.add_argument("path")
    p.add_argument("--seed", default="firn")
    p.add_argument("--compare", action="store_true", help="PATH is a restored tree, not a repository to be written")
    a = p.parse_args()
    if a.compare:
        os.chdir(a.path)
        compare(b"../" + os.path.basename(os.fsencode(os.getcwd())), sample_tree(Random(a.seed + " content")), {})
        print("equal")
    else:
        print(write(a.path, a.seed))


if __name__ == "__main__":
    sys.exit(main())

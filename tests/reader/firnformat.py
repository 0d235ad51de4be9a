"""The format of a firn repository below the level of whole snapshots, from firn-repository(7) alone:
notation, key slots, sealed objects and their frames, block and contents bodies, entries and extents.

It is for: reader.py (and make_sample.py, which writes with the same primitives). It is NOT for: finding
objects and chunks, or writing files; that is reader.py. Nothing here touches the file system.
Every decoder is strict: what the page does not allow raises Damage(object, offset, why); the offset is
one in the (decoded) thing that the message names. Names are bytes.
"""
import collections, json, os, struct
import zstandard
from argon2.low_level import Type as ArgonType, hash_secret_raw
from blake3 import blake3
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as aead_open

MAGIC = b"firn\r\n\x1a\n"
MiB = 1 << 20
CONFIG, DATA, TREE, INDEX, SNAPSHOT, PIN, MARK, TOMB, REVOKE, HOLD, DAMAGE = 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12   # object kinds
CONTENT, PAGE, LIST, ATTRS = 1, 2, 3, 4                                                      # chunk kinds
KIND_WORD = {CONTENT: "content", PAGE: "tree", LIST: "list", ATTRS: "attributes"}
BLOCK, CONTENTS, RECORD = 1, 2, 3                                                            # frame tags
MAX_BODY, MAX_MESSAGE, MAX_PACK, MAX_PAGE = 16 * MiB, 16 * MiB + 65536, 1 << 30, 65536
FILE, DIR, SYMLINK, FIFO, CHARDEV, BLOCKDEV = 1, 2, 3, 4, 5, 6
F_ATTRS, F_LINK, F_BIRTH, F_WAY, F_BLOCKS, F_UNRELIABLE, F_FLAGS = 1, 2, 4, 8, 16, 32, 64
NO_TOTALS = (0, 0, 0, 0, 0)                                  # entries, files, bytes, linked, attributed


class Damage(Exception):
    """Stored bytes are not what the format says."""
    def __init__(self, obj, offset, why):
        super().__init__("%s, offset %s: %s" % (obj, offset, why))


class Refused(Exception):
    """Nothing is damaged, but this reader cannot or must not go on."""


# --- primitives ---------------------------------------------------------------------------------
def HASH(m):
    return blake3(m).digest()

def H(key, m, n=32):
    return blake3(m, key=key).digest(length=n)

def KDF(context, key_material):
    return blake3(key_material, derive_key_context=context).digest()

def padme(l):
    """The padded length of an object of l bytes (l > 1)."""
    e = l.bit_length() - 1
    m = (1 << (e - e.bit_length())) - 1                      # floor(log2 e) + 1 is e.bit_length()
    return (l + m) & ~m

def mask(km, tag, n):
    return H(km, b"mask" + struct.pack("<BQ", tag, n))

def check(km, tag, n, value):
    return H(km, b"check" + struct.pack("<BQQ", tag, n, value))

def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))

def show(name):
    """Bytes of a name for people: a backslash as \\\\, what is not printable UTF-8 as \\xHH."""
    text = name.replace(b"\\", b"\\\\").decode("utf-8", "surrogateescape")
    return "".join(c if c.isprintable() else "".join("\\x%02x" % b for b in os.fsencode(c)) for c in text)


class Cursor:
    """Takes decoded bytes apart and knows where it is."""
    def __init__(self, obj, data):
        self.obj, self.data, self.pos = obj, data, 0

    def fail(self, why, pos=None):
        raise Damage(self.obj, self.pos if pos is None else pos, why)

    def need(self, ok, why):
        if not ok:
            self.fail(why)

    def raw(self, n):
        if n > len(self.data) - self.pos:
            self.fail("%d bytes wanted, %d are left" % (n, len(self.data) - self.pos))
        self.pos += n
        return bytes(self.data[self.pos - n:self.pos])

    def fmt(self, f):
        return struct.unpack("<" + f, self.raw(struct.calcsize("<" + f)))

    def u8(self): return self.fmt("B")[0]
    def u32(self): return self.fmt("I")[0]

    def count(self, n, each):
        """n things of at least `each` bytes follow: refused before anything is allocated for them."""
        if n * each > len(self.data) - self.pos:
            self.fail("a count of %d does not fit in what is left" % n)
        return n

    def varint(self):
        value, shift, start = 0, 0, self.pos
        while True:
            b = self.u8()
            value |= (b & 127) << shift
            if b < 128:
                break
            shift += 7
            if shift > 63:
                self.fail("varint of more than 10 bytes", start)
        if (b == 0 and shift) or value >> 64:
            self.fail("varint not in its shortest form or too large", start)
        return value

    def svarint(self):
        v = self.varint()
        return (v >> 1) ^ -(v & 1)

    def name(self):
        n = self.u8()
        self.need(n >= 1, "empty name")
        return self.raw(n)

    def totals(self):
        return tuple(self.varint() for _ in range(5))

    def end(self):
        self.need(self.pos == len(self.data), "%d bytes too many" % (len(self.data) - self.pos))


def parse_json(obj, body):
    try:
        value = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise Damage(obj, 0, "not JSON: %s" % e)
    if not isinstance(value, dict):
        raise Damage(obj, 0, "JSON, but not an object")
    return value

def check_magic(obj, data, kind):
    if len(data) < 96 or data[:8] != MAGIC:
        raise Damage(obj, 0, "no firn header")
    if data[8] > 1:
        raise Refused("%s has format version %d, this reader knows 1: use a newer one" % (obj, data[8]))
    if data[8] != 1 or data[9] != kind:
        raise Damage(obj, 8, "version %d, kind %d found; kind %d expected" % (data[8], data[9], kind))


# --- keys ---------------------------------------------------------------------------------------
class Secrets:
    def __init__(self, obj, plain):
        c = Cursor(obj + " (secrets)", plain)
        (self.repo, self.chunk_id, self.chunker, self.metadata, self.dedup, self.signing, n) = c.fmt("32s32s32s32s32s32sH")
        c.need(1 <= n <= 64, "number of epochs")
        pairs = [c.fmt("H32s") for _ in range(n)]
        c.need(pairs == sorted(set(pairs)), "epochs and secrets do not ascend")
        self.content = {}                                    # epoch -> its secrets, mostly one
        for epoch, secret in pairs:
            self.content.setdefault(epoch, []).append(secret)
        c.need(len(plain) == -(-c.pos // 512) * 512 and not any(plain[c.pos:]), "padding of the secrets")
        self.id_keys = {k: KDF("firn v1 chunk id " + w, self.chunk_id) for k, w in KIND_WORD.items()}

    def ids(self):
        """What descriptions call the content secrets."""
        return {"%d:%s" % (e, KDF("firn v1 content secret id", s + self.repo + struct.pack("<H", e))[:4].hex())
                for e, of in self.content.items() for s in of}

    def merge(self, other):
        """Takes the content secrets of another slot along."""
        if (other.repo, other.metadata) == (self.repo, self.metadata):
            for epoch, secrets in other.content.items():
                mine = self.content.setdefault(epoch, [])
                mine += [s for s in secrets if s not in mine]


class Slot:
    """A key slot, its bounds checked before anything is spent on it."""
    def __init__(self, obj, data):
        self.obj, self.data = obj, data
        check_magic(obj, data, 2)
        c = Cursor(obj, data)
        c.pos = 10
        self.needs, zero, self.memory, self.passes, self.lanes, self.s, self.i, zero2 = c.fmt("BBIIIHHI")
        c.need(self.needs in (1, 2, 3) and zero == 0 and zero2 == 0, "needs or reserved bytes")
        if self.needs & 1:
            c.need(1 <= self.lanes <= 64 and 1 <= self.passes <= 20 and 8 * self.lanes <= self.memory <= 4194304, "Argon2 costs")
        else:
            c.need(self.memory == self.passes == self.lanes == 0, "Argon2 costs without a password")
        c.need(self.s <= 3072 and self.i <= 768 and len(data) == 176 + self.s + self.i, "lengths")

    def open(self, password, key_file):
        """Secrets, or None if password and key file do not fit."""
        d = self.data
        if (self.needs & 1 and password is None) or (self.needs & 2 and key_file is None):
            return None
        P = hash_secret_raw(password, d[32:64], self.passes, self.memory, self.lanes, 32, ArgonType.ID, 0x13) \
            if self.needs & 1 else bytes(32)
        F = HASH(key_file) if self.needs & 2 else bytes(32)
        ikm = P + F + d[:64]
        if KDF("firn v1 key slot commitment", ikm) != d[64:96]:
            return None
        return Secrets(self.obj, self.part(120, self.s, KDF("firn v1 key slot", ikm), "secrets"))

    def part(self, at, length, key, what):
        try:
            return aead_open(self.data[at:at + length + 16], self.data[:96], self.data[at - 24:at], key)
        except Exception:
            raise Damage(self.obj, at, "the %s fail authentication" % what)

    def description(self, secrets):
        key = KDF("firn v1 key slot description", secrets.metadata + secrets.repo)
        plain = self.part(160 + self.s, self.i, key, "description")
        if len(plain) % 256:
            raise Damage(self.obj, 160 + self.s, "padding of the description")
        return parse_json(self.obj, plain)


# --- sealed objects -----------------------------------------------------------------------------
class Sealed:
    """Any object but a key slot: header, commitment, frames."""
    def __init__(self, obj, data, kind, secrets):
        self.obj, self.data, self.secrets = obj, data, secrets
        check_magic(obj, data, kind)
        c = Cursor(obj, data)
        c.pos = 10
        self.epoch, suite, etype, elen = c.fmt("HBBH")
        c.need(suite == 1 and etype == 0 and elen == 0, "suite or envelope unknown")
        c.need(not any(c.raw(16)), "reserved bytes are not zero")
        c.need(kind == DATA or self.epoch == 0, "key epoch")
        all_S = secrets.content.get(self.epoch) if kind == DATA else [secrets.metadata]
        c.need(all_S is not None, "key epoch %d is not in the key slots" % self.epoch)
        self.header = bytes(data[:96])
        for S in all_S:                                      # the commitment tells which one
            ikm = S + secrets.repo + self.header[:64]
            if KDF("firn v1 object commitment", ikm) == self.header[64:96]:
                break
        else:
            c.fail("key commitment: of another repository or another secret, or damaged", 64)
        K = KDF("firn v1 object key", ikm)
        self.Ke, self.Km, self.Kn = KDF("firn v1 seal", K), KDF("firn v1 mask", K), KDF("firn v1 nonce", K)

    def length(self, tag, n, pos):
        """L of the frame at pos, or None when there is no such frame."""
        if pos + 48 > len(self.data):
            return None
        L = int.from_bytes(xor(self.data[pos:pos + 4], mask(self.Km, tag, n)), "little")
        return L if check(self.Km, tag, n, L)[:4] == self.data[pos + 4:pos + 8] else None

    def frame(self, tag, n, pos):
        """(chunk kind, body, length of the whole frame)"""
        def fail(why): raise Damage(self.obj, pos, "frame %d of tag %d: %s" % (n, tag, why))
        L = self.length(tag, n, pos)
        if L is None:
            fail("not found, its check does not agree")
        if not 8 <= L <= MAX_MESSAGE or pos + 48 + L > len(self.data):
            fail("length %d" % L)
        A = struct.pack("<B", tag) + self.secrets.repo + self.header + struct.pack("<Q", n)
        nonce = self.data[pos + 8:pos + 32]
        try:
            message = aead_open(self.data[pos + 32:pos + 48 + L], A, nonce, self.Ke)
        except Exception:
            fail("fails authentication")
        if H(self.Kn, A + message)[:24] != nonce:
            fail("nonce is not the one the rule gives")
        codec, kind, zero, size = struct.unpack("<BBHI", message[:8])
        body = message[8:]
        if codec > 1 or zero or size > MAX_BODY or (kind not in KIND_WORD if tag == BLOCK else kind):
            fail("message header %s" % message[:8].hex())
        if codec == 1:
            try:
                p = zstandard.get_frame_parameters(body)
                if p.window_size > 1 << 24 or p.content_size not in (size, zstandard.CONTENTSIZE_UNKNOWN):
                    fail("Zstandard window or content size")
                body = zstandard.ZstdDecompressor(max_window_size=1 << 24).decompress(body, max_output_size=size, allow_extra_data=False)
            except zstandard.ZstdError as e:
                fail("Zstandard: %s" % e)
        if len(body) != size:
            fail("body of %d bytes, %d announced" % (len(body), size))
        return kind, body, 48 + L

    def check_padding(self, start, end, whole):
        if whole != padme(start + whole - end) or self.data[start:end] != H(self.Km, b"padding", end - start):
            raise Damage(self.obj, start, "padding")

    def record(self):
        _, body, flen = self.frame(RECORD, 0, 96)
        self.check_padding(96 + flen, len(self.data), len(self.data))
        return body

    def chunks(self, kind, body):
        """The chunks of a block body: [(id, offset, length)]."""
        c = Cursor("%s (block)" % self.obj, body)
        n = c.u32()
        c.need(1 <= n <= 262144, "number of chunks")
        lengths, out, pos = c.fmt("%dI" % c.count(n, 4)), [], c.pos
        for l in lengths:
            if not 1 <= l <= 8 * MiB or pos + l > len(body):
                c.fail("chunk length %d" % l, pos)
            out.append((H(self.secrets.id_keys[kind], body[pos:pos + l]), pos, l))
            pos += l
        if any(body[pos:]):
            c.fail("bytes behind the last chunk are not zero", pos)
        return out

    def contents_offset(self):
        at = len(self.data) - 16
        if at < 96 + 48:
            raise Damage(self.obj, len(self.data), "too short for a pack")
        offset = int.from_bytes(xor(self.data[at:at + 8], mask(self.Km, 4, 0)), "little")
        if check(self.Km, 4, 0, offset)[:8] != self.data[at + 8:]:
            raise Damage(self.obj, at, "trailer")
        return offset

    def contents(self):
        """[(frame length, chunk kind, body length, [(id, length)])] and the end of the contents frame"""
        at = self.contents_offset()
        _, body, flen = self.frame(CONTENTS, 0, at)
        c, out, pos = Cursor(self.obj + " (contents)", body), [], 96
        for _ in range(c.count(c.u32(), 13)):
            frame_len, kind, body_len, n = c.fmt("IBII")
            c.need(kind in KIND_WORD and 56 <= frame_len <= 48 + MAX_MESSAGE and body_len <= MAX_BODY, "block")
            out.append((frame_len, kind, body_len, [c.fmt("32sI") for _ in range(c.count(n, 36))]))
            pos += frame_len
        c.end()
        c.need(80 + sum(4 + 40 * len(chunks) for *_, chunks in out) <= 12 * MiB, "more chunks than an index segment holds")
        c.need(pos == at, "frame lengths do not add up to the offset of the contents frame")
        self.check_padding(at + flen, len(self.data) - 16, len(self.data))
        return out

    def walk(self):
        """Finds blocks without any help: yields (n, offset, frame length); their frames are not opened."""
        pos, n = 96, 0
        while True:
            L = self.length(BLOCK, n, pos)
            if L is None or not 8 <= L <= MAX_MESSAGE or pos + 48 + L > len(self.data):
                return
            yield n, pos, 48 + L
            n, pos = n + 1, pos + 48 + L


# --- index segments and trees ----------------------------------------------------------------------------------------
Extent = collections.namedtuple("Extent", "length id")       # id None: a hole


def read_segment(name, body):
    """(replaced names, {pack: (kind, epoch, size, sha256, frame lengths)}, [(id, pack name, block)])"""
    c = Cursor(name, body)
    replaced = [c.raw(32) for _ in range(c.count(c.u32(), 32))]
    c.need(replaced == sorted(set(replaced)), "replaced segments do not ascend")
    packs, last = {}, b""
    for _ in range(c.count(c.u32(), 48)):
        raw, kind, has_sha, epoch, size = c.fmt("32sBBHQ")
        c.need(raw > last, "packs do not ascend")
        c.need(kind in (DATA, TREE) and has_sha in (0, 1) and (kind == DATA or epoch == 0) and size <= MAX_PACK, "pack")
        sha = c.raw(32) if has_sha else None
        n = c.u32()
        packs[raw.hex()] = kind, epoch, size, sha, c.fmt("%dI" % c.count(n, 4))
        last = raw
    order, chunks, before = list(packs), [], (b"",)
    for _ in range(c.count(c.u32(), 40)):
        entry = c.fmt("32sII")
        c.need(entry > before, "chunks do not ascend")
        c.need(entry[1] < len(order) and entry[2] < len(packs[order[entry[1]]][4]), "chunk points nowhere")
        chunks.append((entry[0], order[entry[1]], entry[2]))
        before = entry
    c.end()
    return replaced, packs, chunks


def read_extents(c, n):
    out = []
    for _ in range(c.count(n, 2)):
        kind, length = c.u8(), c.varint()
        c.need(kind <= 1 and length >= 1, "extent")
        out.append(Extent(length, c.raw(32) if kind else None))
        c.need(len(out) < 2 or out[-1].id or out[-2].id, "two holes touch")
    return out


def read_attributes(obj, data):
    c, out = Cursor(obj, data), []
    n = c.varint()
    c.need(n >= 1, "empty attribute set")
    for _ in range(c.count(n, 3)):
        name, size = c.name(), c.varint()
        c.need(b"\0" not in name and (not out or name > out[-1][0]) and size <= 65536, "attribute")
        out.append((name, c.raw(size)))
    c.end()
    return out


class Entry:
    """One entry of a directory. Attributes as in the page's section Entry."""
    def __init__(self, c, owners, sets, used):
        def pick(i, which, table):
            c.need(i <= used[which] and i < len(table), "owner or attribute set out of range or of the order of first use")
            used[which] = max(used[which], i + 1)
            return table[i]
        self.name = c.name()
        c.need(self.name not in (b".", b"..") and not {0, 47} & set(self.name), "name \"%s\"" % show(self.name))
        self.type, self.flags, self.mode = c.u8(), c.varint(), c.varint()
        c.need(FILE <= self.type <= BLOCKDEV, "type %d" % self.type)
        c.need(self.flags < 128 and self.mode <= 0o7777, "flags %d or mode %o" % (self.flags, self.mode))
        c.need(self.type == DIR or not self.flags & F_WAY, "a way-point that is not a directory")
        c.need(self.type != DIR or not self.flags & F_LINK, "a directory with a hard link")
        self.owner = pick(c.varint(), 0, owners)
        self.mtime = self.time(c)
        self.birth = self.time(c) if self.flags & F_BIRTH else None
        self.attrs = pick(c.varint(), 1, sets) if self.flags & F_ATTRS else None
        self.link, self.nlink = (c.fmt("Q")[0], c.varint()) if self.flags & F_LINK else (None, 1)
        c.need(self.link != 0 and self.nlink >= 1, "hard link")
        self.blocks = c.varint() if self.flags & F_BLOCKS else None
        self.file_flags = c.varint() if self.flags & F_FLAGS else None
        self.size, self.below, self.inline, self.extents, self.list, self.target = 0, NO_TOTALS, None, [], None, None
        if self.type == FILE:
            self.size, how = c.varint(), c.u8()
            c.need(how <= 2 and self.size < 1 << 63, "file body")
            if how == 0:
                c.need(1 <= self.size <= 128, "content in the entry of %d bytes" % self.size)
                self.inline = c.raw(self.size)
            elif how == 1:
                n = c.varint()
                c.need(n <= 32 and (n > 0 or self.size == 0), "number of extents")
                self.extents = read_extents(c, n)
                c.need(sum(x.length for x in self.extents) == self.size, "extents do not add up to the size")
            else:
                self.list = c.raw(32)
        elif self.type == DIR:
            self.size, self.top, self.below = c.varint(), c.raw(32), c.totals()
        elif self.type == SYMLINK:
            n = c.varint()
            c.need(1 <= n <= 4095, "length of the target")
            self.target = c.raw(n)
            c.need(b"\0" not in self.target, "NUL in the target")
        elif self.type in (CHARDEV, BLOCKDEV):
            self.device = (c.varint(), c.varint())

    @staticmethod
    def time(c):
        """Nanoseconds since 1970."""
        s, ns = c.svarint(), c.varint()
        c.need(ns < 10**9, "nanoseconds")
        return s * 10**9 + ns

    def totals(self):
        own = (1, self.type == FILE, self.size if self.type == FILE else 0, self.link is not None, self.attrs is not None)
        return tuple(a + b for a, b in zip(own, self.below))

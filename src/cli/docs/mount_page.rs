//! What the manual page of `firn mount` says beside its options. Not for: options (their definitions say it).

/// Sections, as roff.
pub(crate) const SECTIONS: &str = r#".SH "WHAT A MOUNT PROMISES"
What a mount shows of a snapshot is what was backed up, to every program. Each sentence of this list is tested.
.IP \(bu 2
rsync \-aHAXn \-\-checksum finds nothing to copy, in either direction, and diff \-r no difference.
.IP \(bu 2
stat, du, du \-\-apparent\-size, find \-newer, getfacl \-R, getfattr \-Rd \-m\- and tar print what they print for what was
backed up.
.IP \(bu 2
Where a file has a hole it has one in the mount, for SEEK_HOLE, SEEK_DATA and cp \-\-sparse=auto.
.IP \(bu 2
Hard links of one file have the same inode number, and their count is the recorded one.
.IP \(bu 2
Names can be anything the system allows: 255 bytes long, with newlines, without being UTF\-8.
.IP \(bu 2
Inode numbers are the same after the next mount,
.IP \(bu 2
and so are the places in a directory at which a program goes on to list it.
.IP \(bu 2
df shows what the repository takes on its disk, and how many files the snapshots have.
.IP \(bu 2
With \-\-owner original in a mount by root, the system itself checks permissions, access control lists too.
.IP \(bu 2
Whoever mounts without being root can read everything, also below folders that were closed to them; so can all others with
\-\-owner me.
.IP \(bu 2
Files can be locked for reading (flock) and mapped into memory (mmap).
.IP \(bu 2
SQLite opens a database with mode=ro, and one that has a write\-ahead log with immutable=1.
.IP \(bu 2
Players seek in videos.
.IP \(bu 2
git status, git fsck and git log work.
.IP \(bu 2
cargo builds a project, given a place for its output (\-\-target\-dir).
.PP
What a directory is to its file system is not kept: its own blocks, its number of links, its order. Nor are sockets, and the times
of the last access and of the last change of a file's attributes: both show the time of its last modification. Zeros that were
written may be shown as a hole. A mount in which no snapshot has extended attributes does not support them, which saves every
program that copies from it the time to ask.
.SH "VERSIONS, AND WHAT IS GONE"
In the folder \fBversions\fR every path that is in any snapshot is a folder. In it are the names that ever were below that path, to
go on, and the versions of the path itself, each named by the time of the first snapshot that has it, a file with its own ending:
.PP
.RS 4
.nf
$ ls versions/home/me
2024\-01\-01_09\-00\-00  2024\-03\-05_09\-00\-00  letter.txt
$ ls versions/home/me/letter.txt
2024\-01\-01_09\-00\-00.txt  2024\-03\-05_09\-00\-00.txt
.fi
.RE
.PP
The version of a folder is the folder as it was then, with everything in it, and can be copied as a whole. The folder at the top has
no versions there, for each snapshot is one. A name that a version would have and something below the path has already gets a number
behind it (\fB_2\fR), and so do two versions of one second. What was equal in snapshots that follow each other is one version; if it
came back later, it is another one. What several hosts had at the same time is one.
.PP
In \fBdeleted\fR is the last version of everything that is not in the newest snapshot of its host, in the folders that it was in.
Of what changed its kind in between, only what it was last is there.
.PP
What a damaged snapshot hides in a folder of these is missing in its list, which then ends with an error (\(dqinput/output error\(dq); all
the rest is there.
.PP
Both say what \fBfirn history\fR and \fBfirn deleted\fR say, over the snapshots that the mount shows: hosts, tags and \fB\-\-root\fR
count. The catalog that they are made of is opened when somebody first looks, which takes a while the first time; meanwhile the rest
of the mount goes on, and if it takes longer than some seconds, there is only the file \fIThe history is being read.txt\fR in them. A
minute after the last look it is closed, so that other commands can use it.
.PP
A program that walks through all of \fBversions\fR finds the same folders over and over, below each of their versions; to look through
the versions of the files alone, \fBfind versions/home/me \-path '*.txt/*'\fR.
.SH "WHAT IS KNOWN OF A FILE"
Files and folders have extended attributes that tell what firn knows of them, for whoever asks by name:
.PP
.RS 4
.nf
$ getfattr \-n user.firn.first letter.txt
user.firn.first="2024\-01\-01T09:00:00Z"
.fi
.RE
.TP
.B user.firn.snapshot
The id of the snapshot that it is shown from; in \fBversions\fR the first, in \fBdeleted\fR the last that had it.
.TP
.BR user.firn.first ", " user.firn.last
The times of the first and of the last of the snapshots that follow each other in which it was as it is here. They come from the
history catalog, as \fBversions\fR does; a mount of one snapshot does not have them. Of a folder that gathers the versions of a path,
or what is gone from it: the times of the first and of the last snapshot that has that path.
.TP
.B user.firn.size_stored
Bytes that the content of a file takes in the repository; of what it shares a compressed block with, its part. What several files
have in common counts for each of them, and what came with the tree itself (up to 128 bytes) not at all.
.TP
.B user.firn.blake3
The BLAKE3 hash of the content of a file, in hexadecimal digits. A snapshot records none, so the content is read when somebody asks:
larger files than 16 MiB do not have it.
.TP
.BR user.firn.files ", " user.firn.bytes
How many files are in a folder, at any depth, and how many bytes they have together.
.PP
What needs something that is damaged or missing is an error, and the others are still there. An attribute of such a name that was
backed up is shown instead.
.PP
They are in no list of attributes, so that nothing compares them or copies them along, unless the mount is made with
\fB\-\-xattrs listed\fR. And where no file that is shown has extended attributes, they are only there with \fB\-\-xattrs named\fR:
the kernel is told then that there are none, which saves programs that look for access control lists (\fBcp \-a\fR, \fBrsync \-A\fR,
\fBtar \-\-acls\fR) a question for each file. With it, \fBcp \-a\fR took 1.1 seconds for 20,000 small files instead of 0.9, and 1.7
instead of 0.8 if they had been listed before; \fBls \-l\fR, \fBfind\fR and \fBrsync \-aX\fR were as quick.
.SH "MOUNTING FROM /ETC/FSTAB"
With a link to the program under the name by which
.BR mount (8)
looks for it,
.PP
.RS 4
.nf
ln \-s "$(command \-v firn)" /usr/sbin/mount.fuse.firn
.fi
.RE
.PP
a repository can be mounted like any other file system. This line does nothing at boot; whoever enters the folder has it mounted
by systemd, and it ends after ten minutes without use:
.PP
.RS 4
.nf
/srv/backup  /srv/past  fuse.firn  noauto,nofail,x\-systemd.automount,key\-file=/etc/firn.key,idle\-exit=10m  0  0
.fi
.RE
.PP
All options of this page that have a long name can stand in the fourth field, without the hyphens before them, as
\fBallow_other\fR, \fBowner=me\fR, \fBroot=/home\fR or \fBpassword\-file=/etc/firn.password\fR; \fB\-\fR and \fB_\fR are the same
there, and a comma in a value is written \fB\e,\fR. Not \fB\-\-repo\fR (it is the first field), \fB\-\-daemon\fR (it always is),
\fB\-\-json\fR and \fB\-\-verbose\fR. \fBsnapshot=latest:/home\fR mounts one snapshot. \fBnoexec\fR, which \fBuser\fR brings along,
counts. Whatever else mount(8) and systemd use is accepted and changes nothing (\fB_netdev\fR, \fBnofail\fR, \fBnoauto\fR,
\fBuser\fR, \fBx\-systemd.*\fR, \fBrw\fR, \fBdev\fR, \fBsuid\fR and so on): a mount is always read\-only, without devices and
set\-id bits. Anything unknown is an error, but with \fBmount \-s\fR.
.PP
There is no home folder at boot, so local state is in /var/cache/firn then, unless \fBcache\-dir\fR names another place. Nobody can
be asked for a password; give a file or a command. The exit status is that of mount(8): 1 for a wrong line, 32 if mounting failed.
.PP
A unit for one user, as ~/.config/systemd/user/past.service, with \fBsystemctl \-\-user enable \-\-now past\fR:
.PP
.RS 4
.nf
[Service]
ExecStart=/usr/local/bin/firn \-r /srv/backup \-\-password\-file %h/.config/firn.password mount %h/past
[Install]
WantedBy=default.target
.fi
.RE
.SH "HOW IT ENDS"
Ctrl\-C or a request to end (SIGTERM) unmounts. If something in the mount is in use, it says by whom, goes on, and ends when they
are done; asked again, it disappears from sight at once and serves those that use it to their end. \fB\-\-idle\-exit\fR ends only what
is not in use, too.
.PP
A program that was killed leaves a mount in which everything but what the system has kept in memory is an error (\(dqtransport
endpoint is not connected\(dq), never an empty folder that a mirror job could take for the truth. \fBfirn umount\fR removes it, and so does
the next \fBfirn mount\fR on the same folder.
.PP
Backups, forgetting and pruning can go on beside a mount. A snapshot that was forgotten disappears with the next look for new
ones; what a prune has written into other packs is found there.
.SH "SEARCH INDEXES AND THUMBNAILS"
Programs that read whatever they find would read all snapshots. Those that are known by the name of their process (tumblerd,
tracker, localsearch, baloo, updatedb, recollindex, some thumbnailers) can list everything, but get \fIpermission denied\fR for contents
that would have to be fetched, unless \fB\-\-indexers allow\fR says otherwise; \fBdeny\fR refuses also what is in memory. What the
system has kept of a file, anybody can read. To keep updatedb from walking through all snapshots, add
.B fuse.firn
to PRUNEFS in /etc/updatedb.conf.
.PP
At the root of a mount of snapshots are the empty files \fI.trackerignore\fR, \fI.nomedia\fR and \fI.metadata_never_index\fR, by which
tracker, scanners of media and Spotlight (on a Mac that has the mount by NFS) pass over a folder and everything in it. There are
none in a mount of one snapshot, which shows nothing but what was backed up, and none with \fB\-\-layout previous\-versions\fR.
.SH NFS
The server nfs\-ganesha, as root, gives a mount on to other machines. Mount as root with \fB\-\-allow\-other\fR, and write into
/etc/ganesha/ganesha.conf:
.PP
.RS 4
.nf
NFS_CORE_PARAM { Protocols = 4; }
NFSv4 { Only_Numeric_Owners = true; }
EXPORT { Export_Id = 1; Path = /srv/past; Pseudo = /past; Filesystem_Id = 1.1;
    Access_Type = RO; Protocols = 4; Transports = TCP; SecType = sys; FSAL { Name = VFS; } }
.fi
.RE
.PP
Clients mount server:/past. The server keeps the mount in use: stop it before the mount is to end.
.SH "PREVIOUS VERSIONS IN WINDOWS"
\fBfirn mount \-\-samba\-help \-\-root SHARE FOLDER\fR prints how to mount and what to write into smb.conf, so that Windows shows the
snapshots of a Samba share as previous versions of its files. Two snapshots of one second are a second apart there.
"#;

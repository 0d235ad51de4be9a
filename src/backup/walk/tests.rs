//! Tests of the walk on real directories. Not for: patterns and paths, which have tests of their own.

use super::*;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::Path;

// The events below `base`, way-points left out: "+name", "-", "-?" (incomplete), "name", "!name", "~name reason".
fn tell(base: &Path, paths: &[&str], options: Options) -> Vec<String> {
    let source = Arc::new(Source::new(paths, base).unwrap());
    events(base, Walk::new(source, Arc::new(options)))
}

fn events(base: &Path, walk: Walk) -> Vec<String> {
    let short = |path: &Path| match path.strip_prefix(base) {
        Ok(rest) if rest.as_os_str().is_empty() => ".".into(),
        Ok(rest) => rest.as_os_str().as_bytes().escape_ascii().to_string(),
        Err(_) => path.display().to_string(),
    };
    let mut way = Vec::new();
    let mut told = Vec::new();
    for event in walk {
        match event {
            Event::Enter(item) => {
                way.push(item.waypoint);
                if !item.waypoint {
                    told.push(format!("+{}", short(&item.path)));
                }
            }
            Event::Leave { incomplete } => {
                if !way.pop().expect("each Leave has an Enter") {
                    told.push(if incomplete { "-?".into() } else { "-".into() });
                }
            }
            Event::Item(item) => {
                assert_eq!(item.path.file_name().unwrap().as_bytes(), item.name);
                told.push(short(&item.path));
            }
            Event::Skipped { path, reason } => told.push(format!("~{} {reason:?}", short(&path))),
            Event::Issue { path, .. } => told.push(format!("!{}", short(&path))),
        }
    }
    assert!(way.is_empty());
    told
}

fn excluding(patterns: &[&str]) -> Options {
    Options { excludes: Patterns::from_arguments(patterns).unwrap(), ..Options::default() }
}

fn bytes_path(base: &Path, name: &[u8]) -> PathBuf {
    base.join(OsStr::from_bytes(name))
}

#[test]
fn every_type_in_byte_order() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path();
    for name in [&b"b"[..], b"B", b"a\nb", b"\xff\xfe", b"a.b", &[b'n'; 255]] {
        fs::write(bytes_path(base, name), b"x").unwrap();
    }
    fs::create_dir_all(base.join("a/x")).unwrap();
    fs::write(base.join("a-c"), b"").unwrap();
    symlink("a", base.join("link")).unwrap();
    let fd = File::open(base).unwrap();
    os::mkfifo_at(&fd, b"pipe", 0o600).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(base.join("socket")).unwrap();
    let long = "n".repeat(255);
    let expected = [
        "+.",
        "B",
        "+a",
        "+a/x",
        "-",
        "-",
        r"a\nb",
        "a-c",
        "a.b",
        "b",
        "link",
        &long,
        "pipe",
        "~socket Socket",
        r"\xff\xfe",
        "-",
    ];
    assert_eq!(tell(base, &["."], Options::default()), expected);
    if os::is_root() {
        os::mknod_at(&fd, b"null", FileType::CharDevice, 0o600, (1, 3)).unwrap();
        assert!(tell(base, &["."], Options::default()).contains(&"null".to_owned()));
    }
}

#[test]
fn way_points_and_named_paths() {
    let dir = tempfile::tempdir().unwrap();
    let base = &dir.path().canonicalize().unwrap();
    fs::create_dir_all(base.join("real/one/deep")).unwrap();
    fs::create_dir_all(base.join("real/two")).unwrap();
    fs::write(base.join("real/file"), b"x").unwrap();
    symlink("real", base.join("alias")).unwrap();
    let source = Arc::new(Source::new(&["real/one", "alias/file", "alias"], base).unwrap());
    let expected = ["alias", "real/file", "+real/one", "+real/one/deep", "-", "-"];
    assert_eq!(
        events(base, Walk::new(source, Arc::default())),
        expected,
        "what lies behind a link that is named itself"
    );
    // A link on the way is followed, as its user meant; the named thing itself never.
    let source = Arc::new(Source::new(&["alias/file", "alias/two"], base).unwrap());
    let walk = Walk::new(source, Arc::default());
    let first: Vec<Event> = walk.take(1).collect();
    let [Event::Enter(top)] = &first[..] else { panic!("{first:?}") };
    assert_eq!((top.path.as_path(), top.name.as_slice(), top.waypoint), (Path::new("/"), &b""[..], true));
    assert_eq!(tell(base, &["alias/file", "alias/two"], Options::default()), ["alias/file", "+alias/two", "-"]);
}

#[test]
fn excludes_leave_out_whole_trees_and_tell_of_named_paths() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path();
    fs::create_dir_all(base.join("keep/cache/deep")).unwrap();
    for name in ["keep/a.o", "keep/a.c", "keep/cache/deep/x.c", "keep/important.o"] {
        fs::write(base.join(name), b"x").unwrap();
    }
    let options = || excluding(&["*.o", "!important.o", "cache/"]);
    assert_eq!(tell(base, &["."], options()), ["+.", "+keep", "keep/a.c", "keep/important.o", "-", "-"]);
    assert_eq!(tell(base, &["keep/a.o", "keep/a.c"], options()), ["keep/a.c", "~keep/a.o Excluded"]);
    let absolute = base.join("keep/*.c");
    assert_eq!(
        tell(base, &["keep"], excluding(&[absolute.to_str().unwrap(), "/keep"])),
        [
            "+keep",
            "keep/a.o",
            "+keep/cache",
            "+keep/cache/deep",
            "keep/cache/deep/x.c",
            "-",
            "-",
            "keep/important.o",
            "-"
        ]
    );
}

#[test]
fn cache_directories_keep_only_their_tag() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path();
    for name in ["good/sub", "false", "link", "short"] {
        fs::create_dir_all(base.join(name)).unwrap();
    }
    let tag = [own::CACHE_TAG, b"\n# made by a test\n"].concat();
    fs::write(base.join("good/CACHEDIR.TAG"), &tag).unwrap();
    fs::write(base.join("good/data"), b"x").unwrap();
    fs::write(base.join("false/CACHEDIR.TAG"), [b" ", &tag[..]].concat()).unwrap();
    fs::write(base.join("short/CACHEDIR.TAG"), &tag[..42]).unwrap();
    symlink("../good/CACHEDIR.TAG", base.join("link/CACHEDIR.TAG")).unwrap();
    let options = Options { exclude_caches: true, ..Options::default() };
    assert_eq!(
        tell(base, &["."], options),
        [
            "+.",
            "+false",
            "false/CACHEDIR.TAG",
            "-",
            "+good",
            "~good Cache",
            "good/CACHEDIR.TAG",
            "-",
            "+link",
            "link/CACHEDIR.TAG",
            "-",
            "+short",
            "short/CACHEDIR.TAG",
            "-",
            "-"
        ]
    );
    assert!(tell(base, &["."], Options::default()).contains(&"good/data".to_owned()));
}

#[test]
fn thousands_of_levels_and_few_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut fds = vec![File::open(dir.path()).map(OwnedFd::from).unwrap()];
    const LEVELS: usize = 3000;
    for level in 0..LEVELS {
        let last = fds.pop().unwrap();
        os::mkdir_at(&last, b"deep", 0o700).unwrap();
        os::symlink_at(level.to_string().as_bytes(), &last, b"zz").unwrap();
        fds.push(open_reading(&last, b"deep", OFlags::DIRECTORY).unwrap());
    }
    let source = Arc::new(Source::new(&["."], dir.path()).unwrap());
    let (mut depth, mut deepest, mut most_open) = (0, 0, 0);
    let mut links = Vec::new();
    for event in Walk::new(source, Arc::default()) {
        match event {
            Event::Enter(item) => {
                depth += usize::from(!item.waypoint);
                if depth > deepest && depth % 500 == 0 {
                    let open = fs::read_dir("/proc/self/fd").unwrap();
                    let dirs = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
                    most_open = most_open.max(dirs.filter(|path| path.starts_with(dir.path())).count());
                }
                deepest = deepest.max(depth);
            }
            Event::Leave { incomplete } => {
                assert!(!incomplete);
                depth = depth.saturating_sub(1);
            }
            Event::Item(item) => links.push(super::super::content::link_target(&item).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(deepest, LEVELS + 1);
    let expected: Vec<Vec<u8>> = (0..LEVELS).rev().map(|level| level.to_string().into_bytes()).collect();
    assert_eq!(links, expected, "each was read on the way back, from directories opened again");
    assert!(most_open <= MAX_OPEN as usize + 8, "{most_open} directories were open");
}

#[test]
fn too_deep_is_an_issue_and_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = OwnedFd::from(File::open(dir.path()).unwrap());
    for _ in 0..MAX_DEPTH + 5 {
        os::mkdir_at(&last, b"d", 0o700).unwrap();
        last = open_reading(&last, b"d", OFlags::DIRECTORY).unwrap();
    }
    let told = tell(dir.path(), &["."], Options::default());
    assert_eq!(told.iter().filter(|line| line.starts_with('!')).count(), 1);
    assert_eq!(told.iter().filter(|line| *line == "-?").count(), 1);
}

#[test]
fn fifty_thousand_entries_come_sorted() {
    let dir = tempfile::tempdir().unwrap();
    let fd = File::open(dir.path()).unwrap();
    for number in 0..50_000_u32 {
        let name = format!("{:x}", number.wrapping_mul(2_654_435_761));
        os::mknod_at(&fd, name.as_bytes(), FileType::Socket, 0o600, (0, 0))
            .or_else(|_| File::create(dir.path().join(&name)).map(drop))
            .unwrap();
    }
    let source = Arc::new(Source::new(&["."], dir.path()).unwrap());
    let mut names: Vec<PathBuf> = Vec::new();
    for event in Walk::new(source, Arc::default()) {
        match event {
            Event::Skipped { path, reason: Skip::Socket } => names.push(path),
            Event::Item(item) => names.push(item.path),
            _ => {}
        }
    }
    assert_eq!(names.len(), 50_000);
    assert!(names.windows(2).all(|pair| pair[0].as_os_str().as_bytes() < pair[1].as_os_str().as_bytes()));
}

#[test]
fn what_vanishes_or_moves_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path();
    for name in ["a/x", "b", "c/y"] {
        fs::create_dir_all(base.join(name)).unwrap();
    }
    for name in ["a/f", "d", "e"] {
        fs::write(base.join(name), b"x").unwrap();
    }
    let source = Arc::new(Source::new(&["."], base).unwrap());
    let mut walk = Walk::new(source, Arc::default());
    // Up to the entry of `a`; the names of both directories are known by then.
    assert!(walk.by_ref().any(|event| matches!(event, Event::Enter(item) if item.name == b"a")));
    fs::rename(base.join("a"), base.join("moved")).unwrap();
    fs::remove_dir(base.join("b")).unwrap();
    fs::remove_file(base.join("d")).unwrap();
    fs::remove_dir_all(base.join("c")).unwrap();
    symlink("e", base.join("c")).unwrap();
    let rest: Vec<Event> = walk.collect();
    let told: Vec<String> = rest
        .iter()
        .filter_map(|event| match event {
            Event::Item(item) => Some(format!("{} {:?}", String::from_utf8_lossy(&item.name), item.stat.kind)),
            Event::Skipped { path, reason } => Some(format!("~{} {reason:?}", path.file_name().unwrap().display())),
            Event::Issue { path, .. } => Some(format!("!{}", path.display())),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["f File", "~b Vanished", "c Symlink", "~d Vanished", "e File"]);
    // What was found in the directory that moved can still be read.
    let Some(Event::Item(moved)) = rest.iter().find(|event| matches!(event, Event::Item(_))) else { panic!() };
    assert_eq!(super::super::content::Content::open(moved).unwrap().stat().size, 1);
}

#[test]
fn a_parent_that_moves_deep_in_the_walk_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let deep = PathBuf::from_iter(std::iter::repeat_n("d", 200));
    fs::create_dir_all(dir.path().join("top").join(&deep)).unwrap();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    let victim = dir.path().join("top/d/d/d");
    fs::write(victim.join("z"), b"unseen").unwrap();
    let source = Arc::new(Source::new(&["top"], dir.path()).unwrap());
    let mut walk = Walk::new(source, Arc::default());
    for _ in 0..190 {
        walk.next();
    }
    // Its child goes elsewhere, so `..` leads astray, and then the directory itself goes.
    fs::rename(victim.join("d"), dir.path().join("elsewhere/d")).unwrap();
    fs::rename(&victim, dir.path().join("elsewhere/v")).unwrap();
    let rest: Vec<Event> = walk.collect();
    let issues: Vec<&Path> = rest
        .iter()
        .filter_map(|event| if let Event::Issue { path, .. } = event { Some(path.as_path()) } else { None })
        .collect();
    assert_eq!(issues, [victim.as_path()]);
    assert_eq!(rest.iter().filter(|event| matches!(event, Event::Leave { incomplete: true })).count(), 1);
}

#[test]
fn counting_counts() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/f"), [0; 10]).unwrap();
    symlink("a-target", dir.path().join("l")).unwrap();
    let walk = || Walk::new(Arc::new(Source::new(&["."], dir.path()).unwrap()), Arc::default());
    let stop = crate::progress::Stop::new();
    // Way-points are entries too.
    let way = dir.path().components().count() as u64 - 1;
    assert_eq!(count(walk(), &stop).unwrap(), (way + 4, 10));
}

#[test]
fn names_of_the_list_are_bounded() {
    let mut names = NameList::default();
    names.push(b"b", Hint::Other).unwrap();
    names.push(b"a", Hint::Directory).unwrap();
    names.push(b"b", Hint::Other).unwrap();
    assert!(names.push(&[b'x'; 256], Hint::Other).is_err());
    names.sort();
    assert_eq!(names.get(0), Some((&b"a"[..], Hint::Directory)));
    assert_eq!(names.get(1), Some((&b"b"[..], Hint::Other)));
    assert_eq!(names.get(2), None);
    assert_eq!(std::mem::size_of::<(u32, u8, Hint)>(), 8, "as the memory bound says");
}

// Runs one ignored test of this binary in a process of its own, prepared by `prepare`.
fn alone(test: &str, dir: &Path, prepare: impl FnOnce(&mut std::process::Command)) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("backup::walk::tests::{test}"), "--ignored"]).env("FIRN_TEST_DIR", dir);
    prepare(&mut command);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

fn given_dir() -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(std::env::var_os("FIRN_TEST_DIR").unwrap().into_vec()))
}

#[test]
fn unreadable_directories_are_recorded_empty() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let dir = tempfile::tempdir().unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for name in ["closed/inner", "listed/inner", "open"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("secret"), b"x").unwrap();
    set(&dir.path().join("secret"), 0);
    set(&dir.path().join("closed"), 0);
    set(&dir.path().join("listed"), 0o744);
    set(dir.path(), 0o755);
    if os::is_root() {
        // The test binary may be where nobody else can look.
        let copy = dir.path().join("open/test");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        alone("as_nobody", dir.path(), |command| {
            let mut other = std::process::Command::new(&copy);
            other.args(command.get_args()).env("FIRN_TEST_DIR", dir.path()).uid(65_534).gid(65_534);
            *command = other;
        });
    } else {
        alone("as_nobody", dir.path(), |_| {});
    }
    set(&dir.path().join("closed"), 0o700);
}

#[test]
#[ignore = "run by unreadable_directories_are_recorded_empty"]
fn as_nobody() {
    let told = tell(&given_dir(), &["."], excluding(&["test"]));
    let inner = if os::user_id() == 65_534 { vec!["!listed/inner", "-?"] } else { vec!["+listed/inner", "-", "-"] };
    let expected =
        [vec!["+.", "+closed", "!closed", "-?", "+listed"], inner, vec!["+open", "-", "secret", "-"]].concat();
    assert_eq!(told, expected);
}

#[test]
fn other_file_systems_are_left_out() {
    if !os::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["mounted", "zz"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("firn-test", dir.path().join("mounted"), "tmpfs", flags, None::<&std::ffi::CStr>).unwrap();
    fs::create_dir(dir.path().join("mounted/sub")).unwrap();
    fs::write(dir.path().join("mounted/sub/f"), b"x").unwrap();
    let one = || Options { one_file_system: true, ..Options::default() };
    let all = tell(dir.path(), &["."], Options::default());
    let only = tell(dir.path(), &["."], one());
    let named = tell(dir.path(), &["mounted/sub", "."], one());
    let both = tell(dir.path(), &["mounted", "."], one());
    rustix::mount::unmount(dir.path().join("mounted"), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(all, ["+.", "+mounted", "+mounted/sub", "mounted/sub/f", "-", "-", "+zz", "-", "-"]);
    assert_eq!(only, ["+.", "+mounted", "~mounted OtherFilesystem", "-", "+zz", "-", "-"]);
    assert_eq!(both, all, "a mountpoint that was named is read");
    let told =
        ["+.", "+mounted", "~mounted OtherFilesystem", "+mounted/sub", "mounted/sub/f", "-", "-", "+zz", "-", "-"];
    assert_eq!(named, told, "one that leads to a named path is read as far as it leads");
}

/// Whether a named path comes up, by the events; or that it does not is told.
fn is_in(events: &[String], name: &str) -> (bool, bool) {
    let entered = events.iter().any(|event| *event == name || *event == format!("+{name}"));
    (
        entered,
        events.iter().any(|event| event.starts_with(&format!("!{name}")) || *event == format!("~{name} Excluded")),
    )
}

#[test]
fn whatever_hides_a_named_path_it_is_there_or_that_is_told() {
    // Without another file system, and with one on each of these folders.
    for mountpoint in [None, Some("x/a"), Some("x/a/b")] {
        let dir = tempfile::tempdir().unwrap();
        let base = &dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("x/a/b")).unwrap();
        let mounted = mountpoint.map(|name| base.join(name)).filter(|_| os::is_root());
        let mounted = mounted.map(|folder| {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("firn-test", &folder, "tmpfs", flags, None::<&std::ffi::CStr>).unwrap();
            Mounted(folder)
        });
        fs::create_dir_all(base.join("x/a/b/deep")).unwrap();
        for name in ["x/a/f", "x/a/b/f", "x/a/b/deep/f", "x/a/b/other", "x/a/unnamed"] {
            fs::write(base.join(name), "").unwrap();
        }
        every_named_path_is_there_or_that_is_told(base, mountpoint.filter(|_| mounted.is_some()));
    }
}

/// Ends a mount with a test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Looks at it with all that may hide it; the whole walk stays on one file system if another one is mounted on `mountpoint`.
fn every_named_path_is_there_or_that_is_told(base: &Path, mountpoint: Option<&str>) {
    let tag = [own::CACHE_TAG, b"\n"].concat();
    let at = |name: &str| base.join(name).display().to_string();
    let anchored = [at("x/a"), at("x/a/**"), at("x/a/b"), at("x/a/*")];
    // The exclude rules, whether folders are caches, and what hides; none matches "x" itself.
    let mut rules: Vec<(Vec<&str>, bool)> =
        vec![(vec![], false), (vec!["a"], false), (vec!["a/"], true), (vec![], true)];
    rules.extend(anchored.iter().map(|rule| (vec![rule.as_str()], false)));
    rules.push((vec!["f"], false));
    rules.push((vec!["b", "!x"], true));
    for named in ["x/a", "x/a/f", "x/a/b", "x/a/b/f", "x/a/b/deep", "x/a/b/deep/f"] {
        for outer in [vec![], vec!["x"], vec!["x", "x/a"], vec!["x", "x/a/b"]] {
            for (rule, caches) in &rules {
                for folder in ["x", "x/a", "x/a/b"] {
                    drop(fs::remove_file(base.join(folder).join("CACHEDIR.TAG")));
                    if *caches {
                        fs::write(base.join(folder).join("CACHEDIR.TAG"), &tag).unwrap();
                    }
                }
                let options =
                    Options { exclude_caches: *caches, one_file_system: mountpoint.is_some(), ..excluding(rule) };
                let paths = [&outer[..], &[named]].concat();
                let told = tell(base, &paths, options);
                let (is_there, is_told) = is_in(&told, named);
                assert!(is_there != is_told, "{paths:?} {rule:?} {caches}: {told:?}");
                // Only rules that match the path itself leave it out.
                let itself = Patterns::from_arguments(rule).unwrap();
                let is_dir = base.join(named).is_dir();
                let judged = itself.judge(at(named).as_bytes(), is_dir, Judgement::default());
                let excluded = itself.verdict(judged) == Verdict::Matched;
                assert_eq!(is_told, excluded, "{paths:?} {rule:?} {caches}: {told:?}");
                // What is on another file system comes only with a folder there that was named.
                let is_foreign = |path: &str| mountpoint.is_some_and(|point| path.starts_with(point));
                for name in ["x/a/unnamed", "x/a/b/other"].into_iter().filter(|name| is_foreign(name)) {
                    let is_named = paths.iter().any(|path| is_foreign(path) && name.starts_with(path));
                    assert!(is_named || !is_in(&told, name).0, "{mountpoint:?} {paths:?} {rule:?}: {told:?}");
                }
                if is_in(&told, "x/a/unnamed").0 {
                    let a =
                        rule.iter().any(|rule| rule.starts_with('a')) || rule.iter().any(|rule| rule.ends_with("x/a"));
                    assert!(!caches && (!a || paths.contains(&"x/a") && !is_told), "{paths:?} {rule:?}: {told:?}");
                }
            }
        }
    }
}

#[test]
fn a_named_path_that_is_no_longer_reached_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let base = &dir.path().canonicalize().unwrap();
    fs::create_dir_all(base.join("x/a")).unwrap();
    fs::write(base.join("x/a/f"), "").unwrap();
    let source = Arc::new(Source::new(&["x", "x/a/f"], base).unwrap());
    fs::rename(base.join("x/a"), base.join("x/b")).unwrap();
    symlink("b", base.join("x/a")).unwrap();
    let told = events(base, Walk::new(source, Arc::default()));
    assert_eq!(told, ["+x", "x/a", "+x/b", "x/b/f", "-", "-", "!x/a/f"]);
}

#[test]
fn a_link_with_a_slash_is_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let base = &dir.path().canonicalize().unwrap();
    fs::create_dir_all(base.join("real/sub")).unwrap();
    symlink("real", base.join("link")).unwrap();
    assert_eq!(tell(base, &["link"], Options::default()), ["link"]);
    assert_eq!(tell(base, &["link/"], Options::default()), ["+link", "+link/sub", "-", "-"]);
    assert_eq!(tell(base, &["link/", "link/sub"], excluding(&["sub/**"])), ["+link", "+link/sub", "-", "-"]);
    assert_eq!(tell(base, &["link/"], excluding(&["link"])), ["~link Excluded"]);
}

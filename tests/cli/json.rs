//! What is printed for programs is what firn-json(7) says: every object, every field, its type; and everything on that page is
//! printed. Not for: whether the values are right (see the tests of the commands).

use crate::support::run::{Ran, World};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// A field as the page documents it.
#[derive(Debug)]
struct Field {
    kind: String,
    optional: bool,
}

/// A kind of object on the page: its heading, the commands that print it, its fields by their dotted path.
#[derive(Debug)]
struct Section {
    heading: String,
    commands: Vec<String>,
    fields: BTreeMap<String, Field>,
}

impl Section {
    fn message_type(&self) -> &str {
        self.heading.split(' ').next().unwrap()
    }

    /// What keeps `value` from being an object of this section.
    fn faults(&self, value: &Value) -> Vec<String> {
        let mut found: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        let documented = |path: &str| self.fields.contains_key(path);
        flatten("", value, &documented, &mut found);
        found.remove("message_type");
        let mut faults: Vec<String> = Vec::new();
        for (path, values) in &found {
            match self.fields.get(path) {
                None => faults.push(format!("{path} is not documented")),
                Some(field) => faults.extend(
                    values
                        .iter()
                        .filter(|value| !field.fits(value))
                        .map(|value| format!("{path} is {value}, not {}", field.kind)),
                ),
            }
        }
        let is_missing = |(path, field): &(&String, &Field)| {
            // A list may be empty.
            !field.optional && !path.contains("[]") && !found.contains_key(*path)
        };
        faults.extend(self.fields.iter().filter(is_missing).map(|(path, _)| format!("{path} is missing")));
        faults
    }
}

impl Field {
    fn fits(&self, value: &Value) -> bool {
        self.kind.split(" or ").any(|kind| match kind {
            "string" => value.is_string(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "object" => value.is_object(),
            "array of strings" => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
            "array of objects" => value.as_array().is_some_and(|list| list.iter().all(Value::is_object)),
            other => panic!("the page has a type \"{other}\""),
        })
    }
}

/// All values in `value`, by their paths; goes into objects and lists that are not documented as such.
fn flatten<'v>(
    at: &str,
    value: &'v Value,
    documented: &dyn Fn(&str) -> bool,
    found: &mut BTreeMap<String, Vec<&'v Value>>,
) {
    let below = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    match value {
        Value::Object(fields) if !documented(at) => {
            fields.iter().for_each(|(name, value)| flatten(&below(name), value, documented, found));
        }
        Value::Array(list) if !documented(at) => {
            list.iter().for_each(|value| flatten(&format!("{at}[]"), value, documented, found));
        }
        value => found.entry(at.to_owned()).or_default().push(value),
    }
}

/// Names and paths whose undecodable bytes were replaced, and which are not given once more. The page says which texts are exempt.
fn inexact(value: &Value) -> Vec<String> {
    const EXEMPT: &[&str] = &["message", "hint", "current_files", "diff", "excludes", "user", "group"];
    let is_replaced = |value: &Value| value.as_str().is_some_and(|text| text.contains('\u{fffd}'));
    match value {
        Value::Object(fields) => {
            let below = fields.iter().filter(|(name, _)| !EXEMPT.contains(&name.as_str())).flat_map(|(name, value)| {
                let has_replaced =
                    is_replaced(value) || value.as_array().is_some_and(|list| list.iter().any(is_replaced));
                let mut found = inexact(value);
                if has_replaced && !fields.contains_key(&format!("{name}_base64")) {
                    found.push(format!("{name}: {value}"));
                }
                found
            });
            below.collect()
        }
        Value::Array(list) => list.iter().flat_map(inexact).collect(),
        _ => Vec::new(),
    }
}

fn page() -> Vec<Section> {
    let text = include_str!("../../man/firn-json.7").replace("\\-", "-").replace("\\(aq", "'");
    let messages = text.split("\n.SH ").find(|part| part.starts_with("MESSAGES")).unwrap();
    let mut sections = Vec::new();
    for part in messages.split("\n.SS ").skip(1) {
        let (heading, rest) = part.split_once('\n').unwrap();
        let line =
            rest.lines().find_map(|line| line.strip_prefix("Printed by: ")).unwrap_or_else(|| panic!("{heading}"));
        let mut fields = BTreeMap::new();
        for field in rest.split("\n.TP\n.B ").skip(1) {
            let (name, about) = field.split_once('\n').unwrap();
            let kind =
                about.strip_prefix('(').and_then(|about| about.split(')').next()).unwrap_or_else(|| panic!("{name}"));
            let optional = kind.ends_with(", optional");
            let field = Field { kind: kind.trim_end_matches(", optional").to_owned(), optional };
            assert!(fields.insert(name.to_owned(), field).is_none(), "{heading}: {name} stands there twice");
        }
        sections.push(Section {
            heading: heading.trim_matches('"').to_owned(),
            commands: line.trim_end_matches('.').split(", ").map(str::to_owned).collect(),
            fields,
        });
    }
    sections
}

/// Compares what is printed with the page, and notes what of the page was seen.
struct Reader {
    page: Vec<Section>,
    seen: BTreeSet<(String, String)>,
    wrong: BTreeSet<String>,
}

impl Reader {
    fn read(&mut self, command: &str, ran: Ran) -> Ran {
        let lines: Vec<&str> = ran.stdout.lines().chain(ran.stderr.lines()).collect();
        for line in lines {
            // A program that counts errors counts as the exit status does.
            if ran.code == 0 && line.contains("\"message_type\":\"error\"") {
                self.wrong.insert(format!("firn {command}: an error, and exit status 0: {line}"));
            }
            let Ok(value @ Value::Object(_)) = serde_json::from_str::<Value>(line) else {
                self.wrong.insert(format!("firn {command}: no object: {line}"));
                continue;
            };
            self.object(command, &value);
        }
        ran
    }

    fn object(&mut self, command: &str, value: &Value) {
        let Some(kind) = value["message_type"].as_str() else {
            self.wrong.insert(format!("firn {command}: no message_type: {value}"));
            return;
        };
        let is_of = |commands: &[String]| commands.iter().any(|of| of == "any command" || of == command);
        let mut fitting = self.page.iter().filter(|section| section.message_type() == kind && is_of(&section.commands));
        // Two headings can be of one command ("key rotate --re-encrypt"): the one with the fewer faults is meant.
        let Some(section) = fitting.by_ref().min_by_key(|section| section.faults(value).len()) else {
            self.wrong.insert(format!("firn {command}: {kind} is not documented: {value}"));
            return;
        };
        self.wrong.extend(
            section.faults(value).into_iter().map(|fault| format!("firn {command}: {}: {fault}", section.heading)),
        );
        self.wrong.extend(inexact(value).into_iter().map(|text| format!("firn {command}: {kind}: inexact: {text}")));
        let mut found = BTreeMap::new();
        flatten("", value, &|path| section.fields.contains_key(path), &mut found);
        self.seen.extend(found.into_keys().map(|path| (section.heading.clone(), path)));
    }

    /// What is documented and was never printed.
    fn unseen(&self) -> Vec<String> {
        let fields = self
            .page
            .iter()
            .flat_map(|section| section.fields.keys().map(|path| (section.heading.clone(), path.clone())));
        fields.filter(|field| !self.seen.contains(field)).map(|(heading, path)| format!("{heading}: {path}")).collect()
    }
}

/// Fields that this test cannot make appear, and why.
const RARE: &[&str] = &[
    // Only where a clock was wrong.
    "snapshot: date_doubt",
    // Only where a snapshot of undecodable paths is forgotten, or grouped; the same code prints them for "snapshots".
    "forgotten: snapshot.paths_base64",
    "group (snapshots): snapshots[].paths_base64",
    "group (snapshots): snapshots[].pinned_reason",
    "group (snapshots): snapshots[].forgotten_at",
    "group (snapshots): snapshots[].forgotten_since",
    "group (snapshots): snapshots[].date_doubt",
    // An undecodable path would have to be damaged.
    "error: item_base64",
    // A password that opens a slot together with a key file.
    "key (change): untried",
    // A file of more than 16 MiB that changed.
    "change: too_large",
];

#[test]
fn the_page_is_what_is_printed() {
    let world = World::new();
    let mut reader = Reader { page: page(), seen: BTreeSet::new(), wrong: BTreeSet::new() };
    scenes::all(&world, &mut |command, arguments: &[&str]| {
        // What stands for undecodable bytes here is such a byte there.
        let exact = arguments.iter().map(|text| match text.strip_suffix('\u{fffd}') {
            Some(start) => OsString::from_vec([start.as_bytes(), b"\xff"].concat()),
            None => text.into(),
        });
        let ran = world.run(exact.chain(["--json".into()]));
        reader.read(command, ran)
    });
    assert!(reader.wrong.is_empty(), "{:#?}", reader.wrong);
    let unseen: Vec<String> = reader.unseen().into_iter().filter(|field| !RARE.contains(&field.as_str())).collect();
    assert!(unseen.is_empty(), "documented, but never printed: {unseen:#?}");
}

/// What is said and changes nothing is a warning, whatever says it.
#[test]
fn warnings_are_no_errors() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::with_repository();
    world.write("source/a", "a");
    world.write("password", format!("{}\n", crate::support::run::PASSWORD));
    std::os::unix::fs::symlink(world.path("source"), world.path("link")).unwrap();
    world.run(["backup", "-q", "source", "-H", "one"]).succeeds();
    world.run(["backup", "-q", "source", "-H", "two", "--time", "2999-01-01"]).succeeds();
    world.run(["backup", "-q", "source", "-H", "two"]).succeeds();
    world.run(["key", "add", "-q", "--new-password-command", "echo x", "--new-key-file", "/bin/true"]);
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(world.path("password"), open).unwrap();
    crate::support::run::patch(&world.objects("config")[1], 100, |byte| byte ^ 1);
    let place = format!("latest:{}", world.text("source/a"));
    let mut warned = Vec::new();
    for (line, variables) in [
        (&["snapshots", "-p", "password"][..], &[("FIRN_PASSWORD", None)][..]),
        (&["dump", &place], &[]),
        (&["backup", "link"], &[]),
        (&["snapshots"], &[("HOME", None), ("FIRN_CACHE_DIR", Some("/proc/none"))]),
    ] {
        let ran = world.run_with(line.iter().copied().chain(["--json"]), variables).succeeds();
        let objects = ran.json_errors();
        assert!(objects.iter().all(|object| object["message_type"] != "error"), "{ran:?}");
        let warnings = objects.iter().filter(|object| object["message_type"] == "warning");
        warned.extend(warnings.map(|object| object["message"].as_str().unwrap().to_owned()));
    }
    for word in [
        "can be read by every user",
        "The config \"",
        "is taken from the snapshot",
        "dated in the future",
        "is a link to a folder",
        "No cache is used",
    ] {
        assert!(warned.iter().any(|message| message.contains(word)), "{word}: {warned:#?}");
    }
    // What the exit status tells is an error.
    let snapshot = world.objects("snapshots").pop().unwrap();
    std::fs::write(&snapshot, "damaged").unwrap();
    let ran = world.run(["snapshots", "--json"]).fails(3, &[]);
    let is_it = |object: &Value| object["message_type"] == "error" && object["item"].as_str().unwrap().len() == 64;
    assert!(ran.json_errors().iter().any(is_it), "{ran:?}");
}

/// Usage errors are objects, too, and nothing else is printed.
#[test]
fn usage_errors_are_objects() {
    let world = World::new();
    for line in [
        &["--json", "rename"][..],
        &["backup", "--json"],
        &["--json", "key"],
        &["restore", "--json", "latest", "-t", "out", "--dry-run", "--verify"],
        &["ls", "--json", "--nonsense"],
        &["prune", "--json", "--max-wait", "x"],
    ] {
        let ran = world.run(line);
        let value: Value = serde_json::from_str(ran.stderr.trim()).unwrap_or_else(|_| panic!("{ran:?}"));
        assert_eq!((&value["message_type"], &value["code"], ran.code), (&"exit_error".into(), &2.into(), 2), "{ran:?}");
        assert!(line[1] != "key" || value["message"].as_str().unwrap().contains("missing"), "{ran:?}");
        assert!(ran.stdout.is_empty() && !value["message"].as_str().unwrap().contains("\\x0a"), "{ran:?}");
    }
}

/// Runs of all commands that make every kind of object appear.
mod scenes {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    type Run<'r> = dyn FnMut(&str, &[&str]) -> Ran + 'r;

    pub(super) fn all(world: &World, run: &mut Run<'_>) {
        sources(world);
        run("init", &["init"]).succeeds();
        history(world, run);
        reading(run);
        keeping(run);
        keys(world, run);
        damage(world, run);
    }

    fn sources(world: &World) {
        world.write("source/a.txt", "first\n");
        world.write("source/deep/b.txt", "second\n");
        world.write("source/gone.txt", "gone\n");
        world.write("source/binary", [0_u8; 9]);
        // Enough to be in a pack of its own.
        let noise: Vec<u8> =
            (0..300_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        world.write("source/noise", noise);
        let odd = world.path("source").join(OsStr::from_bytes(b"odd\xff"));
        std::fs::write(&odd, "odd").unwrap();
        std::os::unix::fs::symlink(OsStr::from_bytes(b"to\xff"), world.path("source/link")).unwrap();
        let made =
            std::process::Command::new("mknod").args([&world.text("source/device"), "c", "1", "3"]).status().unwrap();
        assert!(made.success());
    }

    fn history(world: &World, run: &mut Run<'_>) {
        let strange = world.path("").join(OsStr::from_bytes(b"strange\xff"));
        std::fs::create_dir(&strange).unwrap();
        world.run([OsStr::new("backup"), strange.as_os_str()]).succeeds();
        run("backup", &["backup", "source", "--dry-run"]).succeeds();
        run("backup", &["backup", "source", "--tag", "one", "--label", "l", "--description", "d", "--exclude", "*.o"]);
        world.write("source/a.txt", "first\nand more\n");
        std::fs::remove_file(world.path("source/gone.txt")).unwrap();
        std::fs::remove_file(world.path("source").join(OsStr::from_bytes(b"odd\xff"))).unwrap();
        run("backup", &["backup", "source", "--dry-run"]).succeeds();
        run("backup", &["backup", "source", "nothing"]);
        world.write("source/binary", [1_u8, 0, 2]);
        run("backup", &["backup", "source"]).succeeds();
        run("backup", &["backup", "nothing"]);
        run("history", &["history", "source/gone.txt"]).succeeds();
        run("history", &["history", "source/odd\u{fffd}"]).succeeds();
        run("history", &["history", "source/a.txt"]).succeeds();
        run("find", &["find", "*"]).succeeds();
        run("deleted", &["deleted", "source"]).succeeds();
        run("diff", &["diff", "latest~2", "latest", "--metadata", "--content"]).succeeds();
        run("diff", &["diff", "latest"]).succeeds();
    }

    fn reading(run: &mut Run<'_>) {
        run("ls", &["ls", "-R", "latest~2"]).succeeds();
        run("restore", &["restore", "latest~2", "-t", "out", "--verify", "--verbose"]).succeeds();
        run("check", &["check", "--read-data"]).succeeds();
        run("scrub", &["scrub"]).succeeds();
        run("stats", &["stats", "--deep"]).succeeds();
        run("du", &["du", "--depth", "9", "latest~2"]).succeeds();
    }

    fn keeping(run: &mut Run<'_>) {
        run("pin", &["pin", "latest", "--reason", "why"]).succeeds();
        run("snapshots", &["snapshots"]).succeeds();
        run("snapshots", &["snapshots", "--group-by", "host,paths,tags"]).succeeds();
        run("unpin", &["unpin", "latest"]).succeeds();
        run("forget", &["forget", "--keep-last", "2", "--dry-run"]).succeeds();
        run("forget", &["forget", "latest~2", "latest~1"]).succeeds();
        run("snapshots", &["snapshots", "--forgotten"]).succeeds();
        run("undelete", &["undelete", "--all"]).succeeds();
        run("forget", &["forget", "--keep-last", "2"]).succeeds();
        run("prune", &["prune", "--dry-run", "--keep-deleted", "0"]).succeeds();
        run("prune", &["prune", "--keep-deleted", "0", "--max-unused", "0"]).succeeds();
    }

    fn keys(world: &World, run: &mut Run<'_>) {
        world.write("new", "another\n");
        run("key add", &["key", "add", "--new-password-file", "new", "--label", "spare"]).succeeds();
        run("key list", &["key", "list"]).succeeds();
        run("key rotate", &["key", "rotate", "--re-encrypt", "--other-password-file", "new"]).succeeds();
        run("key re-encrypt", &["key", "re-encrypt"]).succeeds();
        let listed = world.run(["key", "list", "--json"]).json();
        let spare = listed.iter().find(|key| key["current"] == false).unwrap()["key_id"].as_str().unwrap().to_owned();
        run("key remove", &["key", "remove", &spare]).succeeds();
        run("key remove", &["key", "remove", "xyz"]).fails(1, &[]);
        world.write("same", format!("{}\n", crate::support::run::PASSWORD));
        run("key passwd", &["key", "passwd", "--new-password-file", "same"]).succeeds();
    }

    fn damage(world: &World, run: &mut Run<'_>) {
        let packs = world.objects("data");
        for pack in &packs {
            let mut bytes = std::fs::read(pack).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(pack, bytes).unwrap();
        }
        run("check", &["check", "--read-data"]);
        run("scrub", &["scrub"]);
        run("repair index", &["repair", "index"]);
        run("restore", &["restore", "latest", "-t", "again"]);
        run("repair packs", &["repair", "packs"]);
        run("repair snapshots", &["repair", "snapshots", "--forget"]);
        let snapshot = world.objects("snapshots").pop().unwrap();
        std::fs::write(&snapshot, "damaged").unwrap();
        run("forget", &["forget", snapshot.file_name().unwrap().to_str().unwrap()]);
    }
}

//! Mounting snapshots: what must be right before, serving, following the repository, and ending. Not for: what is shown (`view`),
//! arguments, signals, going to the background (`cli`), or the kernel (`firn_fuse`).

mod fs;
pub mod indexers;
mod past;
pub mod tree;
pub mod xattrs;

use crate::error::{Error, ErrorKind, Result};
use crate::mount::tree::ahead::Ahead;
use crate::mount::tree::browse::{View, top_directory};
use crate::mount::tree::layout::Layout;
use crate::mount::tree::read::Reader;
use crate::progress::{Progress, Stop};
use crate::repository::Repository;
use crate::repository::snapshots::Named;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
pub use firn_fuse::shell_quoted;
use firn_fuse::{Fault, FaultKind, MountError, Mounted, Notifier, Options, UnmountError};
use past::Past;
use past::history::History;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Type of file system in the mount table, behind `fuse.`.
const SUBTYPE: &str = "firn";
/// How often signals and the end of the mount are looked for.
const TICK: Duration = Duration::from_millis(100);
/// Between two attempts to end a busy mount.
const RETRY: Duration = Duration::from_secs(2);
/// Messages waiting to be passed on; more are dropped, since a damaged disk can make very many.
const MESSAGES: usize = 256;
/// How long the end waits for a look at a slow store.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Who owns the files that are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnerView {
    /// Whoever owned them.
    #[default]
    Original,
    /// Who mounts.
    Me,
    /// Root.
    Root,
}

/// What is shown.
#[derive(Clone, Debug)]
pub enum What {
    /// All snapshots, in folders.
    All(Box<Layout>),
    /// One directory of one snapshot.
    One {
        /// The snapshot.
        snapshot: Box<Named>,
        /// Absolute path in it, empty for its root.
        path: Vec<u8>,
    },
}

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// An empty directory.
    pub mountpoint: PathBuf,
    /// What is shown there.
    pub what: What,
    /// Who owns the files.
    pub owner: OwnerView,
    /// Other users may look at the mount, as far as the recorded permissions let them.
    pub allow_other: bool,
    /// Bytes of decoded blocks that the repository was opened with; half of it is for reading ahead.
    pub cache_bytes: u64,
    /// Bytes of decoded directory pages.
    pub page_cache_bytes: u64,
    /// Between two looks for new snapshots; zero: never.
    pub refresh: Duration,
    /// Threads that read ahead.
    pub threads: usize,
    /// What programs get that read whatever they find.
    pub indexers: indexers::Policy,
    /// Where what firn knows of files is answered as their extended attributes.
    pub known: xattrs::Answered,
    /// No program may be started from the mount.
    pub no_exec: bool,
    /// End when nothing was asked for that long and nothing is open; zero: never.
    pub idle_exit: Duration,
    /// Triggered to end the mount even if it is busy: programs that use files in it can go on, everybody else no longer sees it.
    pub detach: Arc<Stop>,
}

impl MountOptions {
    /// Everything on this directory, with the usual settings.
    pub fn new(mountpoint: PathBuf) -> MountOptions {
        MountOptions {
            mountpoint,
            what: What::All(Box::default()),
            owner: OwnerView::Original,
            allow_other: false,
            cache_bytes: crate::repository::DEFAULT_BLOCK_CACHE,
            page_cache_bytes: crate::mount::tree::browse::DEFAULT_PAGE_CACHE,
            refresh: Duration::from_secs(30),
            threads: 4,
            indexers: indexers::Policy::Cache,
            known: xattrs::Answered::Auto,
            no_exec: false,
            idle_exit: Duration::ZERO,
            detach: Arc::default(),
        }
    }
}

/// The firn mount that is visible at a path, if there is one; also one whose program has died.
pub fn mount_at(point: &Path) -> std::io::Result<Option<firn_fuse::Found>> {
    firn_fuse::find(point, SUBTYPE)
}

enum Event {
    Fault(Fault),
    Note(String),
    /// There is something that this mount cannot show.
    Renew,
}

/// Passes notes on to the thread that may talk to the user.
struct Messenger(Sender<Event>);

impl Progress for Messenger {
    fn note(&self, message: &str) {
        // A full queue means that much was said already.
        drop(self.0.try_send(Event::Note(message.to_owned())));
    }
}

/// Whether this can be mounted: every obstacle that can be known before, each with what to do. Returns the mountpoint, absolute
/// and without symbolic links. The leavings of a firn that died here are removed first.
pub fn prepare(repository: &Repository, options: &MountOptions, progress: &dyn Progress) -> Result<PathBuf> {
    if firn_fuse::clear_dead(&options.mountpoint, SUBTYPE).unwrap_or(false) {
        progress.note(&format!("The dead mount at \"{}\" was removed", options.mountpoint.display()));
    }
    let point = firn_fuse::check(&options.mountpoint, &fuse_options(repository, options)).map_err(mount_error)?;
    let mut folders = vec![("cache folder", repository.cache().path().to_owned())];
    if let Some(folder) = repository.store().properties().folder {
        folders.push(("repository", folder));
    }
    for (what, folder) in folders {
        let folder = folder.canonicalize().unwrap_or(folder);
        if point.starts_with(&folder) || folder.starts_with(&point) {
            return Err(Error::new(
                ErrorKind::Input,
                format!(
                    "\"{}\" cannot be mounted on: it overlaps the {what} \"{}\", which the mount itself reads",
                    point.display(),
                    folder.display()
                ),
            )
            .with_hint("Choose an empty directory elsewhere."));
        }
    }
    Ok(point)
}

/// Mounts, calls `ready` once the mount can be used, and serves it until it is unmounted: from outside, or because `stop` was
/// triggered. A busy mount goes on then, says by whom it is used, and ends when they are done or when `options.detach` is
/// triggered. Faults that clients meet go to `progress.issue`.
pub fn run(
    repository: Arc<Repository>,
    options: &MountOptions,
    progress: &dyn Progress,
    stop: &Stop,
    ready: &mut dyn FnMut(),
) -> Result<()> {
    let point = prepare(&repository, options, progress)?;
    let (sender, events) = bounded(MESSAGES);
    let history = History::new(repository.clone(), Box::new(Messenger(sender.clone())));
    let maker = Maker { repository, options, sender, history, asked: Arc::default() };
    let showing = maker.show(None, progress)?;
    ready();
    Serving { maker, point, progress, showing, outlived: Vec::new(), busy: Instant::now() }.run(stop, &events)
}

fn view(repository: &Arc<Repository>, options: &MountOptions, progress: &dyn Progress) -> Result<View> {
    match &options.what {
        What::All(layout) => View::all(repository.clone(), options.page_cache_bytes, Layout::clone(layout), progress),
        What::One { snapshot, path } => {
            View::one(repository.clone(), options.page_cache_bytes, Named::clone(snapshot), path)
        }
    }
}

fn fuse_options(repository: &Repository, options: &MountOptions) -> Options {
    Options {
        fs_name: format!("firn:{}", repository.id().short()),
        subtype: SUBTYPE.to_owned(),
        allow_other: options.allow_other,
        no_exec: options.no_exec,
        default_permissions: options.allow_other || (options.owner == OwnerView::Original && crate::os::is_root()),
        ..Options::default()
    }
}

/// Makes mounts of the same things.
struct Maker<'a> {
    repository: Arc<Repository>,
    options: &'a MountOptions,
    sender: Sender<Event>,
    history: Arc<History>,
    /// Set by every request to any of the mounts.
    asked: Arc<AtomicBool>,
}

/// A mount and the thread that follows the repository for it.
struct Showing {
    mounted: Mounted,
    /// Dropped to stop the thread.
    follow: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Showing {
    /// Stops following the repository. The thread may be busy with a slow store, which is not waited for very long.
    fn stop_following(&mut self) {
        if let Some((stop, thread)) = self.follow.take() {
            drop(stop);
            let deadline = Instant::now() + LAST_WAIT;
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Maker<'_> {
    /// Mounts what is there now, in place of an `old` mount if there is one.
    ///
    /// The kernel asks for the attributes of each file that is copied, some three times, and keeps none of the answers; it stops for
    /// good when it hears that there are none. So a mount of snapshots without any says so, and is renewed when one with
    /// attributes comes. Where that is not possible, only a mount that cannot grow says it.
    fn show(&self, old: Option<&Mounted>, progress: &dyn Progress) -> Result<Showing> {
        let options = self.options;
        let view = Arc::new(view(&self.repository, options, progress)?);
        let attributes = match view.snapshots().first() {
            Some(tree) if !view.is_growing() => {
                let directory = top_directory(tree)?;
                directory.totals.attributed > 0 || tree.top()?.entry.meta.attributes.is_some()
            }
            // With others looking in, the folder of a snapshot shows what its root has.
            _ => view.has_attributes() || options.allow_other || !firn_fuse::can_renew(),
        };
        if !attributes {
            view.stay_plain();
        }
        let past = Arc::new(Past::new(view.clone(), self.history.clone(), options.allow_other));
        let mounted = self.mount(old, &view, &past, attributes, progress)?;
        let notifier = mounted.notifier();
        // A mount that has ended keeps no listings.
        past.connect(move |ino| drop(notifier.directory_changed(ino)));
        let follow = match options.refresh.is_zero() || !view.is_growing() {
            true => None,
            false => {
                let (stop, stopped) = bounded(0);
                let every = options.refresh;
                Some((stop, start_refresh(view, past, mounted.notifier(), every, self.sender.clone(), stopped)?))
            }
        };
        Ok(Showing { mounted, follow })
    }

    fn mount(
        &self,
        old: Option<&Mounted>,
        view: &Arc<View>,
        past: &Arc<Past>,
        attributes: bool,
        progress: &dyn Progress,
    ) -> Result<Mounted> {
        let (repository, options) = (&self.repository, self.options);
        let mut fuse = fuse_options(repository, options);
        // Access control lists are only right beside the recorded owners.
        fuse.acl = fuse.default_permissions && attributes && options.owner == OwnerView::Original;
        let reader = Arc::new(Reader::new(repository.clone(), options.threads, options.cache_bytes));
        let ahead = Arc::new(Ahead::new(reader.clone()));
        let build = |fuse: &Options| {
            let fs = fs::SnapshotFs {
                repository: repository.clone(),
                view: view.clone(),
                past: past.clone(),
                reader: reader.clone(),
                ahead: ahead.clone(),
                owner: options.owner,
                me: (crate::os::user_id(), rustix::process::getgid().as_raw()),
                strict: options.allow_other,
                attributes,
                known: options.known,
                policy: options.indexers,
                indexers: indexers::Indexers::default(),
                asked: self.asked.clone(),
                totals: Mutex::default(),
            };
            let events = self.sender.clone();
            let report = move |fault: &Fault| drop(events.try_send(Event::Fault(fault.clone())));
            match old {
                Some(old) => firn_fuse::renew(old, fs, fuse, report),
                None => firn_fuse::mount(fs, &options.mountpoint, fuse, report),
            }
        };
        let mounted = match build(&fuse) {
            Err(MountError::NoAcl) => {
                progress
                    .note("This kernel cannot apply access control lists to a mount: only owner, group and mode count");
                fuse.acl = false;
                build(&fuse)
            }
            other => other,
        };
        let mounted = mounted.map_err(mount_error)?;
        let notifier = mounted.notifier();
        // A file that the kernel does not take is asked for as ever.
        ahead.connect(Box::new(move |ino, bytes| drop(notifier.contents(ino, bytes))));
        Ok(mounted)
    }
}

/// A mount being served.
struct Serving<'a> {
    maker: Maker<'a>,
    point: PathBuf,
    progress: &'a dyn Progress,
    showing: Showing,
    /// Mounts that were renewed and are still in use.
    outlived: Vec<Mounted>,
    /// When a request was seen last.
    busy: Instant,
}

impl Serving<'_> {
    fn run(mut self, stop: &Stop, events: &Receiver<Event>) -> Result<()> {
        let detach = self.maker.options.detach.clone();
        let (mut tried, mut detached, mut said) = (None::<Instant>, false, false);
        while !self.is_ended() {
            match events.recv_timeout(TICK) {
                Ok(Event::Renew) if stop.signal().is_none() && !detached => self.renew(),
                Ok(event) => pass_on(event, &self.point, self.progress),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(TICK),
            }
            let unmounter = self.showing.mounted.unmounter();
            if stop.signal().is_none() && !detached {
                self.end_if_idle()?;
            }
            if detach.signal().is_some() && !detached {
                detached = true;
                unmounter.detach().map_err(|error| unmount_error(&error))?;
                self.progress
                    .note("The mount is out of sight; it is served until the last program that uses it is done");
            }
            if stop.signal().is_some() && !detached && tried.is_none_or(|tried| tried.elapsed() >= RETRY) {
                tried = Some(Instant::now());
                match unmounter.unmount() {
                    Ok(()) => {}
                    Err(error @ (UnmountError::Busy { .. } | UnmountError::Covered { .. })) => {
                        if !said {
                            self.progress
                                .note(&format!("{error}. It ends when they are done; ask again to detach it at once"));
                        }
                        said = true;
                    }
                    Err(error) => return Err(unmount_error(&error)),
                }
            }
        }
        self.end(events)
    }

    /// Ends the mount if it was not used for long. The kernel knows what is open, and refuses then; what it answers by itself from
    /// what it has kept is no request, so a mount may end between two looks at the same names.
    fn end_if_idle(&mut self) -> Result<()> {
        let idle = self.maker.options.idle_exit;
        if self.maker.asked.swap(false, Ordering::Relaxed) {
            self.busy = Instant::now();
        }
        if idle.is_zero() || self.busy.elapsed() < idle {
            return Ok(());
        }
        self.busy = Instant::now();
        match self.showing.mounted.unmounter().unmount() {
            Ok(()) | Err(UnmountError::Busy { .. } | UnmountError::Covered { .. }) => Ok(()),
            Err(error) => Err(unmount_error(&error)),
        }
    }

    fn is_ended(&mut self) -> bool {
        self.outlived.retain(|mounted| !mounted.is_ended());
        self.showing.mounted.is_ended() && self.outlived.is_empty()
    }

    /// Something came that this mount cannot show: a new one takes its place.
    fn renew(&mut self) {
        if self.showing.mounted.is_ended() {
            return;
        }
        match self.maker.show(Some(&self.showing.mounted), self.progress) {
            Ok(showing) => {
                let mut old = std::mem::replace(&mut self.showing, showing);
                old.stop_following();
                self.outlived.push(old.mounted);
            }
            Err(error) => self.progress.note(&format!(
                "New snapshots have extended attributes and will be seen once this is mounted again: {}",
                error.chain()
            )),
        }
    }

    fn end(mut self, events: &Receiver<Event>) -> Result<()> {
        self.showing.stop_following();
        self.maker.history.end(LAST_WAIT);
        let ended = self.showing.mounted.wait();
        for event in events.try_iter() {
            pass_on(event, &self.point, self.progress);
        }
        ended.map_err(|error| Error::io(format!("The mount on \"{}\" broke off", self.point.display()), error))
    }
}

fn pass_on(event: Event, point: &Path, progress: &dyn Progress) {
    match event {
        Event::Note(text) => progress.note(&text),
        Event::Renew => {}
        Event::Fault(fault) => {
            let kind = match fault.kind {
                FaultKind::Damaged => ErrorKind::Damaged,
                FaultKind::Missing => ErrorKind::NotFound,
                FaultKind::Denied => ErrorKind::Denied,
                FaultKind::Unsupported => ErrorKind::Unsupported,
                _ => ErrorKind::Failed,
            };
            progress.issue(point, &Error::new(kind, fault.message));
        }
    }
}

fn start_refresh(
    view: Arc<View>,
    past: Arc<Past>,
    notifier: Notifier,
    every: Duration,
    events: Sender<Event>,
    stopped: Receiver<()>,
) -> Result<JoinHandle<()>> {
    let run = move || {
        let messenger = Messenger(events.clone());
        let (mut failing, mut outgrown) = (false, false);
        // Nothing is ever sent: the other end is dropped to stop this.
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
            match view.refresh(&messenger) {
                Ok(None) => {
                    // Once is enough; should it be lost in a full queue or fail, the next mount shows all there is.
                    if !outgrown {
                        outgrown = events.try_send(Event::Renew).is_ok();
                    }
                }
                Ok(Some(changes)) => {
                    failing = false;
                    if !changes.is_empty() {
                        past.renew_listings();
                    }
                    for change in changes {
                        // The mount may have ended meanwhile, which is not an error here.
                        drop(notifier.directory_changed(change.ino));
                        for name in &change.names {
                            drop(notifier.entry_changed(change.ino, name.as_bytes()));
                        }
                    }
                }
                Err(error) if !failing => {
                    failing = true;
                    messenger.note(&format!("New snapshots cannot be looked for: {}", error.chain()));
                }
                Err(_) => {}
            }
        }
    };
    std::thread::Builder::new()
        .name("refresh".to_owned())
        .spawn(run)
        .map_err(|error| Error::io("No thread could be started to look for new snapshots", error))
}

fn mount_error(error: MountError) -> Error {
    let kind = match &error {
        MountError::NotFound(_) => ErrorKind::NotFound,
        MountError::NotADirectory(_) | MountError::NotEmpty(_) => ErrorKind::Input,
        MountError::AlreadyMounted { .. } => ErrorKind::InUse,
        MountError::Denied { .. } | MountError::DeviceDenied | MountError::AllowOtherDenied => ErrorKind::Denied,
        _ => ErrorKind::Failed,
    };
    let hint = match &error {
        MountError::AlreadyMounted { point, .. } if mount_at(point).is_ok_and(|mount| mount.is_some()) => {
            format!(
                "Use that one, or unmount it first: \"firn umount {}\".",
                firn_fuse::shell_quoted(&point.to_string_lossy())
            )
        }
        error => error.hint(),
    };
    let error = Error::new(kind, error.to_string());
    if hint.is_empty() { error } else { error.with_hint(hint) }
}

fn unmount_error(error: &UnmountError) -> Error {
    Error::new(ErrorKind::Failed, error.to_string()).with_hint("Try \"fusermount3 -u\" or, as root, \"umount\".")
}

#[cfg(test)]
mod tests;

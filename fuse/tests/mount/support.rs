//! Mounting for a test and cleaning up whatever happens. Not a test.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use firn_fuse::{Fault, Mounted, Options, mount};

use crate::memory::{Shared, Tree};

/// Whether the environment gives leave to skip.
pub(crate) fn leave(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

/// Skips the test only where the environment says so in plain words.
macro_rules! needs_fuse {
    () => {
        if $crate::support::leave("FIRN_TEST_NO_FUSE") {
            eprintln!("skipped: FIRN_TEST_NO_FUSE=1");
            return;
        }
    };
}
pub(crate) use needs_fuse;

/// The same for what only root can do.
macro_rules! needs_root {
    () => {
        $crate::support::needs_fuse!();
        if !rustix::process::geteuid().is_root() {
            assert!(
                $crate::support::leave("FIRN_TEST_NO_ROOT"),
                "run this as root, or skip it with FIRN_TEST_NO_ROOT=1"
            );
            eprintln!("skipped: FIRN_TEST_NO_ROOT=1");
            return;
        }
    };
}
pub(crate) use needs_root;

/// A mount that goes away with the test, passed or failed.
pub(crate) struct Live {
    pub(crate) tree: Arc<Tree>,
    pub(crate) faults: Arc<Mutex<Vec<Fault>>>,
    pub(crate) mounted: Option<Mounted>,
    dir: tempfile::TempDir,
}

impl Live {
    pub(crate) fn new(tree: Tree) -> Live {
        Live::with(tree, &Options::default())
    }

    pub(crate) fn with(tree: Tree, options: &Options) -> Live {
        let (tree, faults) = (Arc::new(tree), Arc::<Mutex<Vec<Fault>>>::default());
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::clone(&faults);
        let on_fault = move |fault: &Fault| log.lock().unwrap().push(fault.clone());
        let mounted = mount(Shared(Arc::clone(&tree)), dir.path(), options, on_fault).expect("a real mount");
        Live { tree, faults, mounted: Some(mounted), dir }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn mounted(&self) -> &Mounted {
        self.mounted.as_ref().unwrap()
    }

    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.faults.lock().unwrap().clone()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(mounted) = &self.mounted {
            let _ = mounted.unmounter().detach();
        }
    }
}

/// The errno of a failed operation.
pub(crate) fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.expect_err("this must fail").raw_os_error().expect("an errno")
}

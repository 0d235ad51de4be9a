//! What can go wrong, in the few kinds that change what a caller does. Not for: printing (see `cli`).

use std::fmt;

/// The result of nearly everything in firn.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller may do about an error. Each kind has an exit code of its own or is handled differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// An operation failed for a reason outside firn's model: an I/O error, a failed call.
    Failed,
    /// What the caller gave makes no sense: a bad argument or setting.
    Input,
    /// A named thing (object, snapshot, path) is not there.
    NotFound,
    /// An object with this name exists already.
    Exists,
    /// Bytes are not what they must be: damage or tampering. Carries the object's name in its message.
    Damaged,
    /// Written by a newer firn; not damage, never repaired.
    Unsupported,
    /// There is no repository at the given place.
    NoRepository,
    /// Something else is using what we need.
    InUse,
    /// No key slot opens with the given password or key file.
    WrongKey,
    /// The target has no space left.
    Full,
    /// A safety brake stopped the operation.
    Brake,
    /// The operation ended, but some files were left out.
    Incomplete,
    /// The user or the system asked to stop.
    Interrupted,
    /// Not allowed by the operating system.
    Denied,
}

impl ErrorKind {
    /// The process's exit code for an error of this kind (`man firn`, EXIT STATUS).
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Incomplete => 3,
            ErrorKind::Damaged => 5,
            ErrorKind::Brake => 6,
            ErrorKind::NoRepository => 10,
            ErrorKind::InUse => 11,
            ErrorKind::WrongKey => 12,
            ErrorKind::Full => 14,
            ErrorKind::Interrupted => 130,
            ErrorKind::Failed
            | ErrorKind::Input
            | ErrorKind::NotFound
            | ErrorKind::Exists
            | ErrorKind::Unsupported
            | ErrorKind::Denied => 1,
        }
    }
}

/// An error: a kind, a sentence that names the object, what caused it, and what to do next.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` is a sentence without a full stop that names the object in quotes.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), hint: None, source: None }))
    }

    /// An error from the operating system while doing `what`; the kind follows from the error number.
    pub fn io(what: impl Into<String>, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let kind = match error.raw_os_error() {
            Some(libc::ENOSPC) | Some(libc::EDQUOT) => ErrorKind::Full,
            Some(libc::ENOENT) => ErrorKind::NotFound,
            Some(libc::EEXIST) => ErrorKind::Exists,
            Some(libc::EACCES) | Some(libc::EPERM) | Some(libc::EROFS) => ErrorKind::Denied,
            _ => ErrorKind::Failed,
        };
        Error::new(kind, what).with_source(error)
    }

    /// Shorthand for damage: `Damaged` with this message.
    pub fn damaged(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Damaged, message)
    }

    /// Adds what to do next.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Wraps this error into a wider sentence, keeping its kind and hint.
    pub fn context(mut self, message: impl Into<String>) -> Self {
        let hint = self.0.hint.take();
        let kind = self.0.kind;
        let outer = Error::new(kind, message).with_source(self);
        match hint {
            Some(hint) => outer.with_hint(hint),
            None => outer,
        }
    }

    /// The same error under another kind.
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same error for somebody else: kind and hint are kept, the chain becomes one sentence.
    pub fn copy(&self) -> Error {
        let copy = Error::new(self.kind(), self.chain());
        match self.hint() {
            Some(hint) => copy.with_hint(hint),
            None => copy,
        }
    }

    /// What the caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do next, if known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The error number of the operating system's error at the end of the chain, if there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return io.raw_os_error();
            }
            next = error.source();
        }
        None
    }

    /// The whole chain in one line, for logs and JSON.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

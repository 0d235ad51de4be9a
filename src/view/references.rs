//! What pages say about what they name, whether that is so, and walking all that hangs below them. Not for: what is made of it (see
//! `check`, `prune` and `du`).

use super::path::ROOT_NAME;
use crate::error::{Error, Result};
use crate::format::bounds::MAX_DEPTH;
use crate::format::list::{ListChild, ListPage};
use crate::format::message::ChunkKind;
use crate::format::page::{Child, Page};
use crate::format::tree::{Attributes, Body, Content, Entry, Extent, Totals};
use crate::id::ChunkId;
use crate::progress::Stop;
use crate::repository::Repository;
use crate::repository::snapshots::Named;
use crate::repository::tree::check_child;
use std::rc::Rc;

/// What a page, or a snapshot, says about what it names.
#[derive(Clone, Debug)]
pub(crate) enum Claim {
    /// A snapshot's root page.
    Root(Totals),
    /// The top page of a directory.
    Top(Totals),
    /// A page below another one of the same directory.
    Child { level: u8, child: Child, before: Option<Vec<u8>> },
    /// The top list page of a file of this size.
    List(u64),
    /// A list page below another one.
    ListChild { level: u8, bytes: u64, extents: u64 },
    /// A chunk of content of this length.
    Content(u32),
    /// An attribute set of this length.
    Attributes(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub id: ChunkId,
    pub claim: Claim,
    /// The entry's name, on the way from a leaf page to what belongs to the entry.
    pub name: Option<Rc<[u8]>>,
}

impl Reference {
    pub(crate) fn kind(&self) -> ChunkKind {
        match self.claim {
            Claim::Root(_) | Claim::Top(_) | Claim::Child { .. } => ChunkKind::Tree,
            Claim::List(_) | Claim::ListChild { .. } => ChunkKind::List,
            Claim::Content(_) => ChunkKind::Content,
            Claim::Attributes(_) => ChunkKind::Attributes,
        }
    }

    pub(crate) fn is_page(&self) -> bool {
        matches!(self.kind(), ChunkKind::Tree | ChunkKind::List)
    }

    /// Stands for the page and what is said about it: the same page under another claim is looked at again.
    pub(crate) fn key(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.id.0).update(format!("{:?}", self.claim).as_bytes());
        *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
    }
}

/// Whether what a list page covers begins and ends with a hole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edges {
    pub begins: bool,
    pub ends: bool,
}

/// What a snapshot says about its root page.
pub(crate) fn root(named: &Named) -> Reference {
    Reference { id: named.snapshot.tree, claim: Claim::Root(named.snapshot.totals), name: None }
}

/// What a page names, after checking it against what was said about it; and the edges of a list page that has extents.
pub(crate) fn references(reference: &Reference, bytes: &[u8]) -> Result<(Vec<Reference>, Option<Edges>)> {
    let wrong = || Error::damaged("a page is not what the one above it says");
    if reference.kind() == ChunkKind::List {
        let page = ListPage::decode(bytes)?;
        let (bytes, extents) = page.totals()?;
        let agrees = match &reference.claim {
            Claim::List(size) => *size == bytes,
            Claim::ListChild { level, bytes: stated, extents: number } => {
                (page.level(), bytes, extents) == (*level, *stated, *number)
            }
            _ => false,
        };
        if !agrees {
            return Err(wrong());
        }
        return Ok(match page {
            ListPage::Extents(extents) => {
                let is_hole = |extent: Option<&Extent>| matches!(extent, Some(Extent::Hole(_)));
                let edges = Edges { begins: is_hole(extents.first()), ends: is_hole(extents.last()) };
                (extents.iter().filter_map(|extent| content(extent, None)).collect(), Some(edges))
            }
            ListPage::Interior { level, children } => {
                let claim = |child: &ListChild| {
                    let ListChild { bytes, extents, .. } = *child;
                    Claim::ListChild { level: level - 1, bytes, extents }
                };
                let below = children.iter().map(|child| Reference { id: child.page, claim: claim(child), name: None });
                (below.collect(), None)
            }
        });
    }
    let page = Page::decode(bytes)?;
    match &reference.claim {
        Claim::Root(totals) => {
            let is_root = matches!(&page, Page::Leaf(entries) if entries.len() == 1 && entries[0].name == ROOT_NAME
                && matches!(&entries[0].body, Body::Directory { totals: stated, .. } if stated == totals));
            if !is_root {
                return Err(Error::damaged("the page is not a snapshot's root"));
            }
        }
        Claim::Top(totals) if page.totals()? != *totals => return Err(wrong()),
        Claim::Child { level, child, before } => {
            check_child(&page, (page.direct(), &page.totals()?), *level, child, before.as_deref())?;
        }
        _ => {}
    }
    let behind = if let Claim::Child { before, .. } = &reference.claim { before.clone() } else { None };
    let below = match page {
        Page::Leaf(entries) => entries.into_iter().flat_map(entry_references).collect(),
        Page::Interior { level, children } => {
            let next: Vec<_> = children.iter().skip(1).map(|next| Some(next.first_name.clone())).collect();
            let below = children.into_iter().zip(next.into_iter().chain([behind]));
            below
                .map(|(child, before)| {
                    let (id, level) = (child.page, level - 1);
                    Reference { id, claim: Claim::Child { level, child, before }, name: None }
                })
                .collect()
        }
    };
    Ok((below, None))
}

/// Hears of what a walk comes by.
pub(crate) trait Visitor {
    /// Something that is named. Returns whether a page is to be opened: one that was met before is not, by most.
    fn meet(&mut self, reference: &Reference) -> Result<bool>;
    /// A page was opened and has this many bytes.
    fn opened(&mut self, _reference: &Reference, _length: usize) -> Result<()> {
        Ok(())
    }
    /// What is below a page cannot be told; an error ends the walk. `path` is made of the names on the way to it.
    fn failed(&mut self, _path: &[u8], error: Error) -> Result<()> {
        Err(error)
    }
}

/// What is left below a page, at which depth that is, and the page's name.
type Below = (std::vec::IntoIter<Reference>, usize, Option<Rc<[u8]>>);

/// Goes through these and all that is below them, depth first. Memory: a page for each directory on the way down.
pub(crate) fn walk(
    repository: &Repository,
    stop: &Stop,
    start: Vec<Reference>,
    visitor: &mut dyn Visitor,
) -> Result<()> {
    let mut stack: Vec<Below> = vec![(start.into_iter(), 0, None)];
    while let Some((below, depth, _)) = stack.last_mut() {
        let Some(reference) = below.next() else {
            stack.pop();
            continue;
        };
        let depth = *depth + usize::from(matches!(reference.claim, Claim::Top(_)));
        if !visitor.meet(&reference)? || !reference.is_page() {
            continue;
        }
        stop.check()?;
        let opened = match depth > MAX_DEPTH {
            true => Err(Error::damaged("Directories are nested deeper than the format allows")),
            false => open(repository, &reference),
        };
        match opened {
            Ok((below, length)) => {
                visitor.opened(&reference, length)?;
                stack.push((below.into_iter(), depth, reference.name));
            }
            Err(error) => {
                let names = stack.iter().filter_map(|(_, _, name)| name.as_ref()).chain(&reference.name);
                let path: Vec<u8> = names.flat_map(|name| [b"/", &name[..]].concat()).collect();
                visitor.failed(&path, error)?;
            }
        }
    }
    Ok(())
}

fn open(repository: &Repository, reference: &Reference) -> Result<(Vec<Reference>, usize)> {
    let bytes = repository.chunk(reference.kind(), &reference.id)?;
    let (below, _) = references(reference, &bytes)
        .map_err(|error| error.context(format!("The page \"{}\" is damaged", reference.id)))?;
    Ok((below, bytes.len()))
}

fn content(extent: &Extent, name: Option<Rc<[u8]>>) -> Option<Reference> {
    match extent {
        Extent::Hole(_) => None,
        Extent::Chunk { id, len } => Some(Reference { id: *id, claim: Claim::Content(*len), name }),
    }
}

/// What belongs to an entry.
pub(crate) fn entry_references(entry: Entry) -> Vec<Reference> {
    let name: Rc<[u8]> = entry.name.into();
    let mut below = Vec::new();
    if let Some(Attributes::Chunk(id, len)) = entry.meta.attributes.as_deref() {
        below.push(Reference { id: *id, claim: Claim::Attributes(*len), name: Some(name.clone()) });
    }
    match entry.body {
        Body::File { content: Content::Extents(extents), .. } => {
            below.extend(extents.iter().filter_map(|extent| content(extent, Some(name.clone()))));
        }
        Body::File { size, content: Content::List(id) } => {
            below.push(Reference { id, claim: Claim::List(size), name: Some(name) });
        }
        Body::Directory { page, totals, .. } => {
            below.push(Reference { id: page, claim: Claim::Top(totals), name: Some(name) });
        }
        _ => {}
    }
    below
}

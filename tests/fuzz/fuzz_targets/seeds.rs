//! Writes what the golden repository holds, decoded, as inputs for the targets: `cargo run --bin seeds FOLDER` makes
//! FOLDER/page and so on. Not for: fuzzing.

use firn::format::frame::FrameTag;
use firn::format::header::Kind;
use firn::format::message::ChunkKind;
use firn::repository::keys::Credentials;
use firn::repository::pack::{open_block, read_contents};
use firn::repository::{CacheChoice, OpenOptions, Repository};
use firn::store::{LocalStore, ObjectKey, ObjectKind, Store};
use std::path::Path;
use std::sync::Arc;

/// Inputs of one target that are worth keeping.
const MOST: usize = 60;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name a folder")?;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/v1");
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(&golden)?);
    let password = "Eis und Schnee, naïve".as_bytes().to_vec();
    let credentials = Credentials { password: Some(password.into()), key_file: None };
    let options = OpenOptions { cache: CacheChoice::None, block_cache: 1 << 20 };
    let repository = Repository::open(store.clone(), &credentials, &options)?;
    let write = |target: &str, bytes: &[u8]| -> std::io::Result<()> {
        let folder = Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder)?;
        if bytes.len() <= 70_000 && std::fs::read_dir(&folder)?.count() < MOST {
            std::fs::write(folder.join(firn::repository::keyring::object_name(bytes).to_string()), bytes)?;
        }
        Ok(())
    };
    let keys = |kind| -> firn::error::Result<Vec<ObjectKey>> {
        let mut keys = Vec::new();
        store.list(kind, &mut |object| {
            keys.push(ObjectKey::new(kind, object.name));
            Ok(())
        })?;
        Ok(keys)
    };
    for (kind, under, target) in [
        (Kind::Config, ObjectKind::Config, "config"),
        (Kind::IndexSegment, ObjectKind::Index, "index"),
        (Kind::Snapshot, ObjectKind::Snapshot, "snapshot"),
        (Kind::Tomb, ObjectKind::Tomb, "coordination"),
    ] {
        for key in keys(under)? {
            let bytes = store.get(&key, 1 << 24)?;
            write("header", &bytes[..96])?;
            write(target, &repository.keyring().open_record(kind, bytes)?)?;
        }
    }
    for key in keys(ObjectKind::Key)? {
        write("key_slot", &store.get(&key, 1 << 12)?)?;
    }
    write("key_slot", &repository.keyring().secrets().encode()?)?;
    for (kind, under) in [(Kind::DataPack, ObjectKind::Data), (Kind::TreePack, ObjectKind::Tree)] {
        for key in keys(under)? {
            let bytes = store.get(&key, 1 << 30)?;
            write("header", &bytes[..96])?;
            let name = firn::id::ObjectName::parse(&key.name)?;
            let contents = read_contents(repository.keyring(), store.as_ref(), kind, name)?.contents;
            write("contents", &contents.encode()?)?;
            let opened = repository.keyring().open(kind, &bytes)?;
            let mut at = 96;
            for (number, listed) in contents.blocks.iter().enumerate() {
                let frame = &bytes[at..at + listed.frame_len as usize];
                at += listed.frame_len as usize;
                let sealed = &mut frame.to_vec();
                write("message", repository.keyring().open_frame(&opened, FrameTag::Block, number as u64, sealed)?)?;
                let sealed = &mut frame.to_vec();
                let block = open_block(repository.keyring(), &opened, number as u32, sealed)?;
                write("block", &block.body)?;
                for (_, range) in &block.chunks {
                    let chunk = &block.body[range.clone()];
                    match block.kind {
                        ChunkKind::Tree => {
                            write("page", chunk)?;
                            let length = (chunk.len() as u16).to_le_bytes();
                            write("walk", &[&[1], &length[..], chunk].concat())?;
                        }
                        ChunkKind::List => write("list", chunk)?,
                        ChunkKind::Attributes => write("attributes", chunk)?,
                        ChunkKind::Content => {}
                    }
                }
            }
        }
    }
    Ok(())
}

//! Which files `applink lint` reads.

use serde::Serialize;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A larger file is no manifest.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A file's text.
#[derive(Debug)]
pub struct Text {
    /// Its path as it was given; `-` for standard input.
    pub name: String,
    /// What stands in it.
    pub text: String,
}

/// A file that can't be read.
#[derive(Debug, Serialize)]
pub struct NotRead {
    /// Its path.
    pub file: String,
    /// Why not.
    #[serde(rename = "message")]
    pub why: String,
}

/// Reads the files, those of folders in the order of their names.
pub fn read(paths: &[PathBuf]) -> (Vec<Text>, Vec<NotRead>) {
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for path in paths {
        let result = if path.as_os_str() == "-" {
            text_of(std::io::stdin().lock()).map(|text| found.push(Text { name: "-".into(), text }))
        } else if path.is_dir() {
            let before = found.len() + failed.len();
            folder(path, &mut found, &mut failed);
            if found.len() + failed.len() == before {
                Err("has no .yaml, .yml or .json file".to_owned())
            } else {
                Ok(())
            }
        } else {
            file(path).map(|text| found.push(text))
        };
        if let Err(why) = result {
            failed.push(NotRead { file: path.display().to_string(), why });
        }
    }
    (found, failed)
}

fn folder(path: &Path, found: &mut Vec<Text>, failed: &mut Vec<NotRead>) {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) => {
            failed.push(NotRead { file: path.display().to_string(), why: e.to_string() });
            return;
        }
    };
    let mut below: Vec<_> = entries.filter_map(Result::ok).collect();
    below.sort_by_key(std::fs::DirEntry::file_name);
    for entry in below {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        // A link to a folder isn't followed: it may lead back here.
        let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
        let named = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if hidden {
            continue;
        } else if is_folder {
            folder(&path, found, failed);
        } else if named && path.is_file() {
            match file(&path) {
                Ok(text) => found.push(text),
                Err(why) => failed.push(NotRead { file: path.display().to_string(), why }),
            }
        }
    }
}

fn file(path: &Path) -> Result<Text, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    Ok(Text { name: path.display().to_string(), text: text_of(file)? })
}

fn text_of(source: impl std::io::Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("is larger than 16 MiB".into());
    }
    String::from_utf8(bytes).map_err(|_| "isn't text (UTF-8)".into())
}

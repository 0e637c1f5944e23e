//! Bytes: how a text is encoded, what is done to a body, and how an answer is sent.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

/// A text in an encoding, and with a byte order mark where `mark` is said.
pub fn encoded(body: Vec<u8>, how: &str) -> Vec<u8> {
    let (name, mark) = how.split_once(' ').map_or((how, false), |(name, mark)| (name, mark == "mark"));
    if name == "utf-8" && !mark {
        // Not always a text.
        return body;
    }
    let text = String::from_utf8(body).expect("a text");
    let text = if mark { format!("\u{feff}{text}") } else { text };
    match name {
        "utf-8" => text.into_bytes(),
        "utf-16le" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        "utf-16be" => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        other => panic!("no encoding {other}"),
    }
}

/// A body after what is done to it, step by step, and its `Content-Encoding`.
pub fn coded(body: Vec<u8>, steps: &str) -> (Vec<u8>, String) {
    let mut names = Vec::new();
    let body = steps.split_whitespace().fold(body, |body, step| match step {
        "gzip" => {
            names.push("gzip");
            let mut to = GzEncoder::new(Vec::new(), Compression::default());
            to.write_all(&body).and_then(|()| to.finish()).expect("memory")
        }
        "deflate" => {
            names.push("deflate");
            let mut to = ZlibEncoder::new(Vec::new(), Compression::default());
            to.write_all(&body).and_then(|()| to.finish()).expect("memory")
        }
        "raw" => {
            names.push("deflate");
            let mut to = DeflateEncoder::new(Vec::new(), Compression::default());
            to.write_all(&body).and_then(|()| to.finish()).expect("memory")
        }
        // The checksum and the length of gzip.
        "cut" => body[..body.len() - 8].to_vec(),
        "half" => body[..body.len() / 2].to_vec(),
        "flip" => {
            let mut body = body;
            let at = body.len() - 8;
            body[at] ^= 1;
            body
        }
        other => panic!("no coding {other}"),
    });
    (body, names.join(", "))
}

/// An answer as it is sent:
///
/// | framing | |
/// |---|---|
/// | `length` | HTTP/1.1 with a `Content-Length` |
/// | `chunked`, `chunked cut` | in chunks, with or without the last one |
/// | `close`, `http10` | until the connection ends |
/// | `more`, `less` | more or fewer bytes than the `Content-Length` says |
/// | `late` | an empty line comes first |
/// | `bare` | lines end without a carriage return |
pub fn framed(status: u16, headers: &BTreeMap<String, String>, body: &[u8], framing: &str) -> Vec<u8> {
    let version = if framing == "http10" { "1.0" } else { "1.1" };
    let mut head = format!("HTTP/{version} {status} X\r\nConnection: close\r\n");
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    let length = |n: usize| format!("Content-Length: {n}\r\n");
    let mut body = body.to_vec();
    match framing {
        "length" | "late" | "bare" => head += &length(body.len()),
        "close" | "http10" => {}
        "less" => head += &length(body.len() + 50),
        "more" => {
            head += &length(body.len());
            body.extend(b"and more");
        }
        "chunked" | "chunked cut" => {
            head += "Transfer-Encoding: chunked\r\n";
            let mut chunks = Vec::new();
            for chunk in body.chunks(20) {
                chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                chunks.extend(chunk);
                chunks.extend(b"\r\n");
            }
            if framing == "chunked" {
                chunks.extend(b"0\r\n\r\n");
            }
            body = chunks;
        }
        other => panic!("no framing {other}"),
    }
    let head = match framing {
        "late" => format!("\r\n{head}\r\n"),
        "bare" => format!("{head}\r\n").replace("\r\n", "\n"),
        _ => format!("{head}\r\n"),
    };
    [head.into_bytes(), body].concat()
}

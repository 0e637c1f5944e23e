//! Content codings (RFC 9110 section 8.4). Every request asks for `identity`, and a server may send
//! another one all the same, so gzip and deflate are decoded: a token reply that isn't read is lost.

use super::SendError;
use flate2::{Crc, Decompress, FlushDecompress, Status};
use http::header::{CONTENT_ENCODING, HeaderMap};

/// Why a body can't be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CodingError {
    /// A coding that isn't decoded here.
    #[error(
        "it has the content coding {0}, which isn't decoded here and wasn't asked for; have the server, or the proxy \
         before it, send identity, gzip or deflate"
    )]
    Unknown(&'static str),
    /// The bytes aren't of the coding that the server names.
    #[error(
        "its Content-Encoding names {0}, and it can't be decoded from that; check the server, or the proxy before it"
    )]
    Corrupt(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
}

/// More codings than this, one over the other, are no server's habit.
const MOST: usize = 3;

/// A body without the codings that its headers name; at most `max` bytes, also on the way. `None` where
/// they name none.
///
/// # Errors
/// [`SendError::Undecodable`], or [`SendError::TooLarge`] as soon as it is known.
pub(super) fn decode(headers: &HeaderMap, body: &[u8], max: usize) -> Result<Option<Vec<u8>>, SendError> {
    // Nothing is nothing, whatever is said of it.
    if body.is_empty() {
        return Ok(None);
    }
    let codings = codings(headers).map_err(SendError::Undecodable)?;
    codings.into_iter().rev().try_fold(None, |done: Option<Vec<u8>>, coding| {
        let body = done.as_deref().unwrap_or(body);
        let decoded = match coding {
            Coding::Gzip => gunzip(body, max),
            Coding::Deflate => inflate(body, max),
        };
        decoded.map(Some)
    })
}

/// The codings in the order in which they were applied.
fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, CodingError> {
    let values = headers.get_all(CONTENT_ENCODING).iter().map(|v| v.to_str().unwrap_or("\u{0}"));
    let names = values.flat_map(|v| v.split(',')).map(str::trim).filter(|n| !n.is_empty());
    let mut found = Vec::new();
    for name in names {
        match name.to_ascii_lowercase().as_str() {
            "identity" => {}
            "gzip" | "x-gzip" => found.push(Coding::Gzip),
            "deflate" => found.push(Coding::Deflate),
            other => return Err(CodingError::Unknown(registered(other))),
        }
    }
    if found.len() > MOST { Err(CodingError::Unknown("of more than three layers")) } else { Ok(found) }
}

/// The coding's registered name, so that no word of the server is repeated.
fn registered(name: &str) -> &'static str {
    const NAMES: &[&str] =
        &["br", "zstd", "dcb", "dcz", "compress", "x-compress", "exi", "aes128gcm", "pack200-gzip"];
    NAMES.iter().find(|n| **n == name).copied().unwrap_or("of a name that isn't registered")
}

/// One member or several (RFC 1952); what follows the last one and isn't a member is no part of the body.
///
/// Some servers leave the checksum out at the end. Where the data came to their own end, nothing lacks.
fn gunzip(mut body: &[u8], max: usize) -> Result<Vec<u8>, SendError> {
    const CORRUPT: SendError = SendError::Undecodable(CodingError::Corrupt("gzip"));
    let mut out = Vec::new();
    loop {
        body = &body[gzip_header(body).ok_or(CORRUPT)?..];
        let begun = out.len();
        let length = inflate_into(&mut out, body, false, max)?.ok_or(CORRUPT)?;
        body = &body[length..];
        if let Some((trailer, rest)) = body.split_first_chunk::<8>() {
            let mut crc = Crc::new();
            crc.update(&out[begun..]);
            let sums = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
            if sums != trailer {
                return Err(CORRUPT);
            }
            body = rest;
        }
        if !body.starts_with(&GZIP) {
            return Ok(out);
        }
    }
}

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// How long the header of a member is (RFC 1952 section 2.3).
fn gzip_header(body: &[u8]) -> Option<usize> {
    let (head, _) = body.split_first_chunk::<10>()?;
    let flags = head[3];
    if !head.starts_with(&GZIP) || head[2] != 8 || flags & 0xe0 != 0 {
        return None;
    }
    let mut length = 10;
    if flags & 4 != 0 {
        let extra = body.get(length..length + 2)?;
        length += 2 + usize::from(u16::from_le_bytes([extra[0], extra[1]]));
    }
    // A name and a comment, which end with a zero.
    for flag in [8, 16] {
        if flags & flag != 0 {
            length += 1 + body.get(length..)?.iter().position(|b| *b == 0)?;
        }
    }
    if flags & 2 != 0 {
        length += 2;
    }
    (length <= body.len()).then_some(length)
}

/// RFC 9110 has the zlib format here; some servers send the data without its header.
fn inflate(body: &[u8], max: usize) -> Result<Vec<u8>, SendError> {
    const CORRUPT: SendError = SendError::Undecodable(CodingError::Corrupt("deflate"));
    let mut out = Vec::new();
    if inflate_into(&mut out, body, true, max)?.is_some() {
        return Ok(out);
    }
    out.clear();
    inflate_into(&mut out, body, false, max)?.ok_or(CORRUPT)?;
    Ok(out)
}

/// Decodes up to the end that the data name themselves, and says how many bytes they had. `None` where
/// they aren't of this format, or have no end.
fn inflate_into(out: &mut Vec<u8>, data: &[u8], zlib: bool, max: usize) -> Result<Option<usize>, SendError> {
    const STEP: usize = 16 * 1024;
    let mut decoder = Decompress::new(zlib);
    loop {
        let (read, written) = (decoder.total_in(), out.len());
        out.reserve(STEP);
        let rest = usize::try_from(read).ok().and_then(|read| data.get(read..)).unwrap_or_default();
        let Ok(status) = decoder.decompress_vec(rest, out, FlushDecompress::None) else { return Ok(None) };
        if out.len() > max {
            return Err(SendError::TooLarge);
        }
        match status {
            Status::StreamEnd => return Ok(usize::try_from(decoder.total_in()).ok()),
            _ if decoder.total_in() == read && out.len() == written => return Ok(None),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::header::HeaderValue;
    use proptest::prelude::*;
    use std::io::Write as _;

    const MAX: usize = 64 * 1024;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut to = GzEncoder::new(Vec::new(), Compression::best());
        to.write_all(text).expect("memory");
        to.finish().expect("memory")
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut to = ZlibEncoder::new(Vec::new(), Compression::best());
        to.write_all(text).expect("memory");
        to.finish().expect("memory")
    }

    fn raw(text: &[u8]) -> Vec<u8> {
        let mut to = DeflateEncoder::new(Vec::new(), Compression::best());
        to.write_all(text).expect("memory");
        to.finish().expect("memory")
    }

    fn decoded(codings: &[&str], body: Vec<u8>) -> Result<Vec<u8>, SendError> {
        let mut headers = HeaderMap::new();
        for coding in codings {
            headers.append(CONTENT_ENCODING, HeaderValue::from_bytes(coding.as_bytes()).expect("a value"));
        }
        decode(&headers, &body, MAX).map(|decoded| decoded.unwrap_or(body))
    }

    #[test]
    fn what_servers_send_unasked_is_decoded() {
        const TEXT: &[u8] = b"{\"access_token\":\"at\"}";
        let mut named = flate2::GzBuilder::new()
            .filename("a")
            .comment("b")
            .extra("cd")
            .write(Vec::new(), Compression::best());
        named.write_all(TEXT).expect("memory");
        let with_all_fields = named.finish().expect("memory");
        let two_members = [gzip(&TEXT[..9]), gzip(&TEXT[9..])].concat();
        for (codings, body) in [
            (&[][..], TEXT.to_vec()),
            (&[""], TEXT.to_vec()),
            (&["identity"], TEXT.to_vec()),
            (&["gzip"], gzip(TEXT)),
            (&["X-GZip"], gzip(TEXT)),
            (&["gzip"], two_members),
            (&["gzip"], [gzip(TEXT), vec![0; 9]].concat()),
            (&["gzip"], gzip(TEXT)[..gzip(TEXT).len() - 8].to_vec()),
            (&["gzip"], with_all_fields),
            (&["deflate"], zlib(TEXT)),
            (&["deflate"], raw(TEXT)),
            (&["deflate, gzip"], gzip(&zlib(TEXT))),
            (&["gzip", "gzip, identity"], gzip(&gzip(TEXT))),
        ] {
            assert_eq!(decoded(codings, body).as_deref(), Ok(TEXT), "{codings:?}");
        }
        assert_eq!(decoded(&["br"], Vec::new()), Ok(Vec::new()));
    }

    #[test]
    fn what_cant_be_decoded_is_named_by_registered_names_alone() {
        use CodingError::{Corrupt, Unknown};
        let whole = gzip(b"{}");
        let cut = whole[..whole.len() - 9].to_vec();
        let mut wrong = gzip(b"{}");
        let at = wrong.len() - 8;
        wrong[at] ^= 1;
        let foreign = Unknown("of a name that isn't registered");
        for (codings, body, error) in [
            (&["br"][..], whole.clone(), Unknown("br")),
            (&["gzip, ZSTD"], whole.clone(), Unknown("zstd")),
            (&["canary"], whole.clone(), foreign),
            (&["gzïp"], whole.clone(), foreign),
            (&["gzip"], cut, Corrupt("gzip")),
            (&["gzip"], wrong, Corrupt("gzip")),
            (&["gzip"], b"\x1f\x8b".to_vec(), Corrupt("gzip")),
            (&["gzip"], b"\x1f\x8b\x08\x1c\0\0\0\0\0\0\xff\xffname".to_vec(), Corrupt("gzip")),
            (&["deflate"], zlib(&[b'x'; 99])[..9].to_vec(), Corrupt("deflate")),
            (&["deflate"], raw(&[b'x'; 99])[..3].to_vec(), Corrupt("deflate")),
            (&["gzip"], b"{\"access_token\":\"at\"}".to_vec(), Corrupt("gzip")),
            (&["deflate"], b"{\"access_token\":\"at\"}".to_vec(), Corrupt("deflate")),
            (&["gzip, gzip, gzip, gzip"], whole, Unknown("of more than three layers")),
        ] {
            let found = decoded(codings, body);
            assert_eq!(found, Err(SendError::Undecodable(error)), "{codings:?}");
            assert!(!format!("{:?} {error}", found).contains("canary"));
        }
    }

    #[test]
    fn a_bomb_is_refused_without_being_held() {
        // A gigabyte, in a megabyte or less; nested, in a few kilobytes.
        let mut to = GzEncoder::new(Vec::new(), Compression::best());
        let megabyte = vec![0; 1 << 20];
        (0..1024).for_each(|_| to.write_all(&megabyte).expect("memory"));
        let bomb = to.finish().expect("memory");
        let nested = gzip(&bomb);
        assert!(nested.len() < MAX, "{}", nested.len());
        for (codings, body) in [("gzip", &bomb), ("gzip, gzip", &nested)] {
            assert_eq!(decoded(&[codings], body.clone()), Err(SendError::TooLarge), "{codings}");
        }
        for body in [zlib(&megabyte), raw(&megabyte)] {
            assert_eq!(decoded(&["deflate"], body), Err(SendError::TooLarge));
        }
        // Members that are small each.
        let many = gzip(&megabyte[..MAX / 2]).repeat(3);
        assert_eq!(decoded(&["gzip"], many), Err(SendError::TooLarge));
        // What is held is a little more than is allowed.
        let mut out = Vec::new();
        let data = &bomb[gzip_header(&bomb).expect("a header")..];
        assert_eq!(inflate_into(&mut out, data, false, MAX), Err(SendError::TooLarge));
        assert!(out.capacity() <= 4 * MAX, "{}", out.capacity());
        assert_eq!(decoded(&["gzip"], gzip(&megabyte[..MAX])).map(|b| b.len()), Ok(MAX));
    }

    proptest! {
        #[test]
        fn nothing_panics(flags: u8, bytes: Vec<u8>, coding in "gzip|deflate") {
            let _ = decoded(&[&coding], bytes.clone());
            let _ = decoded(&["gzip"], [&[0x1f, 0x8b, 8, flags][..], &bytes].concat());
        }
    }
}

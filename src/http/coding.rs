//! Content codings (RFC 9110 section 8.4). Every request asks for `identity`, and a server may send
//! another one all the same, so gzip and deflate are decoded: a token reply that isn't read is lost.

use super::SendError;
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use std::io::Read;

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

/// A body without the codings that its headers name; at most `max` bytes, also on the way.
///
/// # Errors
/// [`SendError::Undecodable`], or [`SendError::TooLarge`] as soon as it is known.
pub(super) fn decode(headers: &HeaderMap, body: Vec<u8>, max: usize) -> Result<Vec<u8>, SendError> {
    // Nothing is nothing, whatever is said of it.
    if body.is_empty() {
        return Ok(body);
    }
    let codings = codings(headers).map_err(SendError::Undecodable)?;
    codings.into_iter().rev().try_fold(body, |body, coding| match coding {
        Coding::Gzip => gunzip(&body, max),
        Coding::Deflate => inflate(&body, max),
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

/// One member or several; what follows the last one and isn't a member is no part of the body.
fn gunzip(mut body: &[u8], max: usize) -> Result<Vec<u8>, SendError> {
    let mut out = Vec::new();
    loop {
        let mut member = GzDecoder::new(body);
        read(&mut member, &mut out, max, "gzip")?;
        body = member.into_inner();
        if !body.starts_with(&[0x1f, 0x8b]) {
            return Ok(out);
        }
    }
}

/// RFC 9110 has the zlib format here; some servers send the stream without its header.
fn inflate(body: &[u8], max: usize) -> Result<Vec<u8>, SendError> {
    let zlib = matches!(body, [cmf, flg, ..] if cmf & 0x0f == 8 && (u16::from(*cmf) << 8 | u16::from(*flg)).is_multiple_of(31));
    let mut out = Vec::new();
    if zlib {
        match read(ZlibDecoder::new(body), &mut out, max, "deflate") {
            Err(SendError::Undecodable(_)) => out.clear(),
            done => return done.map(|()| out),
        }
    }
    read(DeflateDecoder::new(body), &mut out, max, "deflate")?;
    Ok(out)
}

fn read(decoder: impl Read, out: &mut Vec<u8>, max: usize, coding: &'static str) -> Result<(), SendError> {
    // One byte more than is allowed shows that there is more.
    let room = (max - out.len().min(max) + 1) as u64;
    decoder.take(room).read_to_end(out).map_err(|_| SendError::Undecodable(CodingError::Corrupt(coding)))?;
    if out.len() > max { Err(SendError::TooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use reqwest::header::HeaderValue;
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
        decode(&headers, body, MAX)
    }

    #[test]
    fn what_servers_send_unasked_is_decoded() {
        const TEXT: &[u8] = b"{\"access_token\":\"at\"}";
        let two_members = [gzip(&TEXT[..9]), gzip(&TEXT[9..])].concat();
        for (codings, body) in [
            (&[][..], TEXT.to_vec()),
            (&[""], TEXT.to_vec()),
            (&["identity"], TEXT.to_vec()),
            (&["gzip"], gzip(TEXT)),
            (&["X-GZip"], gzip(TEXT)),
            (&["gzip"], two_members),
            (&["gzip"], [gzip(TEXT), vec![0; 9]].concat()),
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
        let cut = whole[..whole.len() - 4].to_vec();
        let foreign = Unknown("of a name that isn't registered");
        for (codings, body, error) in [
            (&["br"][..], whole.clone(), Unknown("br")),
            (&["gzip, ZSTD"], whole.clone(), Unknown("zstd")),
            (&["canary"], whole.clone(), foreign),
            (&["gzïp"], whole.clone(), foreign),
            (&["gzip"], cut, Corrupt("gzip")),
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
        // What is held is what the decoder was given room for.
        let mut out = Vec::new();
        assert_eq!(read(GzDecoder::new(&bomb[..]), &mut out, MAX, "gzip"), Err(SendError::TooLarge));
        assert!(out.len() == MAX + 1 && out.capacity() <= 4 * MAX, "{} {}", out.len(), out.capacity());
        assert_eq!(decoded(&["gzip"], gzip(&megabyte[..MAX])).map(|b| b.len()), Ok(MAX));
    }
}

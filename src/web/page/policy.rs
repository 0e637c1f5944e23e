//! The Content Security Policy (level 3) of the pages.

use axum::http::HeaderValue;

/// What a page may do. Nothing from another host, nothing inside the HTML, and no frame around it.
#[derive(Debug, Clone)]
pub struct Policy {
    header: HeaderValue,
}

impl Policy {
    /// A page with forms that go to this site alone.
    pub fn own() -> Self {
        Self {
            header: HeaderValue::from_static(
                "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                 form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            ),
        }
    }

    /// The same, with a form that may also go to a program of the person's own, on this port of the
    /// same machine.
    pub fn own_and_loopback(port: u16) -> Self {
        let own = Self::own();
        let text = own.header.to_str().unwrap_or_default();
        let forms = format!("form-action 'self' http://127.0.0.1:{port};");
        HeaderValue::from_str(&text.replace("form-action 'self';", &forms))
            .map_or(own, |header| Self { header })
    }

    /// The header's value.
    pub fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_inline_nothing_foreign_and_no_frame() {
        let header = Policy::own().header();
        let text = header.to_str().expect("text");
        assert!(
            text.starts_with("default-src 'none'; ") && text.ends_with("frame-ancestors 'none'"),
            "{text}"
        );
        for word in ["unsafe", "http", "*", "\n"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
        let loopback = Policy::own_and_loopback(4711).header();
        let wider = loopback.to_str().expect("text");
        assert_eq!(wider.replace(" http://127.0.0.1:4711", ""), text);
        assert!(wider.contains("form-action 'self' http://127.0.0.1:4711;"), "{wider}");
    }
}

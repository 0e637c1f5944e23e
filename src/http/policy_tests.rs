//! The policy as a table: who may be called, in every notation of an address.

use super::address::{is_public, is_public_name};
use super::allow::AllowFault;
use super::message::{MAX_RETRY_AFTER, parse_retry_after};
use super::testing::allowed;
use super::url_policy::{check_addresses, check_url};
use super::*;
use jiff::Timestamp;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use url::Url;

fn check(url: &str, allow: &[&str]) -> Result<(), RefusedReason> {
    check_url(&Url::parse(url).expect("url"), Trust::Guarded, &allowed(allow))
}

/// Addresses as a tenant might write them to get at something inside.
const INSIDE: &[&str] = &[
    "https://127.0.0.1/",
    "https://127.0.0.1:8443/",
    "https://127.1/",
    "https://127.0.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://0x7F.0x0.0x0.0x1/",
    "https://0177.0.0.1/",
    "https://0177.0.0.01/",
    "https://017700000001/",
    "https://127.0.0.1./",
    "https://%31%32%37.0.0.1/",
    "https://１２７.０.０.１/",
    "https://①②⑦.0.0.1/",
    "https://127。0。0。1/",
    "https://0/",
    "https://0.0.0.0/",
    "https://0.1.2.3/",
    "https://10.0.0.1/",
    "https://10.255.255.255/",
    "https://0xa000001/",
    "https://012.0.0.1/",
    "https://100.64.0.1/",
    "https://100.127.255.255/",
    "https://169.254.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://2852039166/",
    "https://0xa9fea9fe/",
    "https://0251.0376.0251.0376/",
    "https://168.63.129.16/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.0.0.192/",
    "https://192.0.2.1/",
    "https://192.88.99.1/",
    "https://192.168.0.1/",
    "https://192.168.65535/",
    "https://198.18.0.1/",
    "https://198.19.255.255/",
    "https://198.51.100.1/",
    "https://203.0.113.1/",
    "https://224.0.0.1/",
    "https://239.255.255.255/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://4294967295/",
    "https://[::]/",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:8.8.8.8]/",
    "https://[::127.0.0.1]/",
    "https://[::8.8.8.8]/",
    "https://[64:ff9b::8.8.8.8]/",
    "https://[64:ff9b::a00:1]/",
    "https://[64:ff9b:1::1]/",
    "https://[100::1]/",
    "https://[2001::1]/",
    "https://[2001:10::1]/",
    "https://[2001:db8::1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[3fff::1]/",
    "https://[4000::1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fdff::1]/",
    "https://[fe80::1]/",
    "https://[febf::1]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://a.localhost/",
    "https://kubernetes/",
    "https://kubernetes.default.svc/",
    "https://kubernetes.default.svc.cluster.local/",
    "https://metadata.google.internal/",
    "https://printer.local/",
    "https://box.home.arpa/",
    "https://1.0.0.127.in-addr.arpa/",
];

#[test]
fn what_is_inside_is_refused_in_every_notation_with_the_same_words() {
    assert!(INSIDE.len() >= 60);
    let words = RefusedReason::NotPublic.to_string();
    for url in INSIDE {
        let refused = check(url, &[]).expect_err(url);
        assert_eq!((refused, refused.to_string()), (RefusedReason::NotPublic, words.clone()), "{url}");
    }
}

#[test]
fn other_refusals() {
    for (url, why) in [
        ("http://ci.example.com/", RefusedReason::PlainHttp),
        ("http://127.0.0.1/", RefusedReason::PlainHttp),
        ("ftp://ci.example.com/", RefusedReason::Scheme),
        ("file:///etc/passwd", RefusedReason::Scheme),
        ("gopher://ci.example.com/", RefusedReason::Scheme),
        ("data:text/plain,x", RefusedReason::Scheme),
        ("javascript:alert(1)", RefusedReason::Scheme),
        ("unix:/run/x.sock", RefusedReason::Scheme),
        ("https://ci.example.com:22/", RefusedReason::Port),
        ("https://ci.example.com:25/", RefusedReason::Port),
        ("https://ci.example.com:80/", RefusedReason::Port),
        ("https://8.8.8.8:53/", RefusedReason::Port),
        ("https://ci.example.com:8443/", RefusedReason::Port),
        ("https://8.8.8.8:10250/", RefusedReason::Port),
        ("https://ci.example.com:0/", RefusedReason::Port),
        ("https://user@ci.example.com/", RefusedReason::UserInfo),
        ("https://user:password@ci.example.com/", RefusedReason::UserInfo),
        ("https://:password@ci.example.com/", RefusedReason::UserInfo),
        ("https://ci.example.com@127.0.0.1/", RefusedReason::UserInfo),
    ] {
        assert_eq!(check(url, &[]), Err(why), "{url}");
    }
    // A zone ID isn't even a URL.
    for url in
        ["https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/", "https://[::1", "https://1.2.3.4.5.6/"]
    {
        assert!(Url::parse(url).is_err(), "{url}");
    }
}

#[test]
fn public_addresses_are_allowed() {
    for url in [
        "https://ci.example.com/",
        "https://ci.example.com./",
        "https://ci.example.com:443/",
        "https://8.8.8.8/",
        "https://172.32.0.1/",
        "https://100.128.0.1/",
        "https://[2606:4700::1]/",
        "https://[2a00:1450::1]/",
        "https://xn--bcher-kva.example.com/",
    ] {
        assert_eq!(check(url, &[]), Ok(()), "{url}");
    }
}

#[test]
fn a_trusted_address_may_be_anything_but_must_be_http() {
    let check = |url: &str| check_url(&Url::parse(url).expect("url"), Trust::Trusted, &allowed(&[]));
    for url in ["http://127.0.0.1:4445/", "http://hydra-admin/", "https://10.0.0.1:22/", "https://[::1]/"] {
        assert_eq!(check(url), Ok(()), "{url}");
    }
    assert_eq!(check("file:///etc/passwd"), Err(RefusedReason::Scheme));
    assert_eq!(check("http://a:b@127.0.0.1/"), Err(RefusedReason::UserInfo));
}

#[test]
fn the_allow_list_allows_what_it_says() {
    for (entry, url, permitted) in [
        ("ci.corp", "https://ci.corp/", true),
        ("ci.corp", "https://CI.corp.:22/", true),
        ("CI.Corp.", "https://ci.corp/", true),
        ("ci.corp", "https://x.ci.corp/", false),
        ("ci.corp", "http://ci.corp/", false),
        ("http://ci.corp", "http://ci.corp/", true),
        ("http://ci.corp", "https://ci.corp/", true),
        ("https://ci.corp", "http://ci.corp/", false),
        ("ci.corp:8080", "https://ci.corp:8080/", true),
        ("ci.corp:8080", "https://ci.corp/", false),
        ("http://ci.corp:80", "http://ci.corp/", true),
        ("*.corp", "https://ci.corp/", true),
        ("*.corp", "https://a.ci.corp/", true),
        ("*.corp", "https://corp/", false),
        ("*.corp", "https://evilcorp/", false),
        ("*.ci.corp", "https://evilci.corp/", false),
        ("10.0.0.0/8", "https://10.1.2.3/", true),
        ("10.0.0.0/8", "https://0xa010203/", true),
        ("10.0.0.0/8", "http://10.1.2.3/", false),
        ("10.0.0.0/8", "https://11.1.2.3/", true),
        ("10.0.0.0/8", "https://192.168.0.1/", false),
        ("10.0.0.0/8", "https://[::ffff:10.0.0.1]/", false),
        ("http://10.0.0.0/8", "http://10.1.2.3/", true),
        ("http://10.0.0.0/8:8080", "http://10.1.2.3/", false),
        ("http://10.0.0.0/8:8080", "http://10.1.2.3:8080/", true),
        ("127.0.0.1", "https://127.0.0.1/", true),
        ("127.0.0.1", "https://127.0.0.2/", false),
        ("[::1]:8443", "https://[::1]:8443/", true),
        ("[::1]:8443", "https://[::1]/", false),
        ("::1", "https://[::1]/", true),
        ("fd00::/8", "https://[fd00::1]/", true),
        ("[fd00::/8]:443", "https://[fd00::1]/", true),
        ("[fd00::/8]:443", "https://[fd00::1]:444/", false),
        ("bücher.corp", "https://xn--bcher-kva.corp/", true),
        ("ci.example.com:8443", "https://ci.example.com:8443/", true),
        (":8443", "https://ci.example.com:8443/", true),
        ("https://:8443", "https://8.8.8.8:8443/", true),
        (":8443", "https://ci.example.com/", true),
        (":8443", "https://ci.example.com:9443/", false),
        (":8443", "http://ci.example.com:8443/", false),
        (":8443", "https://10.0.0.1:8443/", false),
        (":8443", "https://[::1]:8443/", false),
        (":8443", "https://vault.svc:8443/", false),
    ] {
        assert_eq!(check(url, &[entry]).is_ok(), permitted, "{entry} for {url}");
    }
}

#[test]
fn allow_entries_that_cant_be_read_say_so() {
    use AllowFault as F;
    for (entry, fault) in [
        ("", F::Empty),
        ("http://", F::Empty),
        ("http://:8080", F::PlainEverywhere),
        (":", F::Port),
        (":0", F::Port),
        ("ftp://a", F::Scheme),
        ("https://a/path", F::MoreThanHost),
        ("a/", F::MoreThanHost),
        ("a b", F::MoreThanHost),
        ("u@a", F::MoreThanHost),
        ("a?b", F::MoreThanHost),
        ("a:0", F::Port),
        ("a:+1", F::Port),
        ("a:65536", F::Port),
        ("a:http", F::Port),
        ("a:", F::Port),
        ("[::1", F::Host),
        ("[::1]x", F::MoreThanHost),
        ("a..b", F::Host),
        ("a%00b", F::Host),
        ("*", F::Wildcard),
        ("*.", F::Host),
        ("a.*.b", F::Wildcard),
        ("*a.b", F::Wildcard),
        ("127.1", F::ShortAddress),
        ("0x7f000001", F::ShortAddress),
        ("10.1.2.3/8", F::HostBits),
        ("10.0.0.0/33", F::Host),
        ("ci.corp/8", F::Host),
        ("1:2:3", F::Host),
    ] {
        let error = AllowList::parse([entry]).expect_err(entry);
        assert_eq!(error.fault, fault, "{entry}");
        assert_eq!(error.entry, entry);
        assert!(error.to_string().contains("; write a host"), "{error}");
    }
}

#[test]
fn one_bad_address_refuses_the_whole_answer() {
    let ips = |list: &[&str]| list.iter().map(|s| s.parse::<IpAddr>().expect("ip")).collect::<Vec<_>>();
    let ask = |list: &[&str], port, plain, allow: &[&str]| {
        check_addresses("ci.example.com", &ips(list), port, plain, &allowed(allow)).is_ok()
    };
    assert!(ask(&["8.8.8.8", "2606:4700::1"], 443, false, &[]));
    assert!(!ask(&["8.8.8.8", "10.0.0.1"], 443, false, &[]));
    assert!(!ask(&["8.8.8.8", "::ffff:8.8.4.4"], 443, false, &[]));
    assert!(!ask(&[], 443, false, &[]));
    assert!(!ask(&["8.8.8.8"], 22, false, &[]));
    assert!(ask(&["8.8.8.8"], 8443, false, &[":8443"]));
    assert!(!ask(&["8.8.8.8", "10.0.0.1"], 8443, false, &[":8443"]));
    assert!(!ask(&["8.8.8.8"], 80, true, &[]));
    assert!(ask(&["8.8.8.8", "10.0.0.1"], 443, false, &["10.0.0.0/8"]));
    assert!(!ask(&["8.8.8.8", "10.0.0.1", "192.168.0.1"], 443, false, &["10.0.0.0/8"]));
    assert!(!ask(&["10.0.0.1"], 80, true, &["10.0.0.0/8"]));
    assert!(ask(&["10.0.0.1"], 80, true, &["http://10.0.0.0/8"]));
    assert!(!ask(&["8.8.8.8", "10.0.0.1"], 80, true, &["http://10.0.0.0/8"]));
    assert!(ask(&["127.0.0.1"], 80, true, &["http://ci.example.com"]));
    assert!(ask(&["127.0.0.1"], 8443, false, &["*.example.com"]));
}

#[test]
fn names_that_the_public_dns_doesnt_have() {
    assert!(is_public_name("a.example.com"));
    assert!(is_public_name("local.example.com"));
    for name in ["a", "a.", ".", "", ".com", "a.SVC", "a.local.", "a.test", "a..", "a..b", "..", "a.com.."] {
        assert!(!is_public_name(name), "{name:?}");
    }
}

proptest! {
    #[test]
    fn no_address_of_a_special_range_is_public(a in 0u8..=255, b in 0u8..=255, c in 0u8..=255, d in 0u8..=255) {
        let ip = Ipv4Addr::new(a, b, c, d);
        let special = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_broadcast()
            || ip.is_documentation() || ip.is_unspecified() || ip.is_multicast() || a == 0 || a >= 240
            || (a == 100 && b & 0xc0 == 64);
        if special {
            prop_assert!(!is_public(IpAddr::V4(ip)));
        }
        // Whatever it carries, an IPv6 address that carries an IPv4 address isn't public.
        prop_assert!(!is_public(IpAddr::V6(ip.to_ipv6_mapped())));
        prop_assert!(!is_public(IpAddr::V6(ip.to_ipv6_compatible())));
        // However it is written.
        let n = u32::from(ip);
        let dotted = check(&format!("https://{ip}/"), &[]);
        for url in [format!("https://{n}/"), format!("https://0x{n:x}/"), format!("https://0{n:o}/")] {
            prop_assert_eq!(check(&url, &[]), dotted);
        }
    }

    #[test]
    fn no_retry_after_panics_or_exceeds_the_bound(text in "\\PC{0,40}", now in 0i64..4_000_000_000) {
        let now = Timestamp::from_second(now).expect("time");
        prop_assert!(parse_retry_after(&text, now).is_none_or(|d| d <= MAX_RETRY_AFTER));
    }
}

#[test]
fn retry_after_in_both_forms() {
    let now: Timestamp = "1994-11-06T08:49:07Z".parse().expect("time");
    let secs = |text: &str| parse_retry_after(text, now).map(|d| d.as_secs());
    assert_eq!(secs("120"), Some(120));
    assert_eq!(secs(" 0 "), Some(0));
    assert_eq!(secs("3601"), Some(3600));
    assert_eq!(secs("99999999999999999999999999"), Some(3600));
    assert_eq!(secs("Sun, 06 Nov 1994 08:49:37 GMT"), Some(30));
    assert_eq!(secs("Sun, 06 Nov 1994 08:48:37 GMT"), Some(0));
    assert_eq!(secs("Tue, 31 Dec 2999 23:59:59 GMT"), Some(3600));
    for bad in ["", "-1", "1.5", "soon", "Sunday, 06-Nov-94 08:49:37 GMT"] {
        assert_eq!(secs(bad), None, "{bad}");
    }
}

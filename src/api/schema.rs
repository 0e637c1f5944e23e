//! Pieces of OpenAPI schema that derive macros can't say: patterns, limits, and CEL rules on the
//! items of a list, so that a refusal names the very item.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

fn rule(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}

/// A DNS subdomain, as object names are.
pub fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": 253,
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
    })
}

/// A DNS subdomain that may be left out.
pub fn optional_object_name(g: &mut SchemaGenerator) -> Schema {
    object_name(g)
}

/// A DNS label, as namespaces are.
fn dns_label() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" })
}

/// A key of a Secret.
pub fn secret_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[-._a-zA-Z0-9]+$" })
}

/// A point in time (RFC 3339).
pub fn date_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// An optional https or http URL without user information and fragment.
pub fn url(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": 2048,
        "x-kubernetes-validations": [
            rule("isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHost() != ''",
                 "must be an absolute http or https URL, such as https://app.example.com"),
            rule("!self.contains('#')", "must have no fragment (#…)"),
            rule("!self.matches('^[a-zA-Z]+://[^/?]*@')", "must have no user information before the host"),
        ]
    })
}

/// What a duration looks like; `crate::domain::duration` reads it.
pub const DURATION: &str = "^([0-9]{1,5}d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$";

/// How a duration is written, for its description.
pub const DURATION_FORMAT: &str = "whole numbers with d, h, m or s, largest first.";

/// The seconds of a text with [`DURATION`]'s syntax, in CEL, whose own durations know no days. Numbers, since the
/// API server takes a text that is put together for one of any length, and the rule for too dear.
fn seconds(text: &str) -> String {
    format!(
        "((!{text}.contains('d') ? 0 : 86400 * int({text}.substring(0, {text}.indexOf('d')))) + \
         ({text}.endsWith('d') ? 0 : duration({text}.substring({text}.indexOf('d') + 1)).getSeconds()))"
    )
}

fn duration_of(bounds: &str, message: &str) -> Schema {
    let text = format!("self != '' && [{}].all(s, {bounds})", seconds("self"));
    json_schema!({
        "type": "string", "maxLength": 20, "pattern": DURATION,
        "x-kubernetes-validations": [rule(&text, message)]
    })
}

/// A duration such as 10m; at least ten seconds.
pub fn duration(_: &mut SchemaGenerator) -> Schema {
    let message = "must be a duration between 10s and 365d, such as 10m, 1h30m or 30d";
    duration_of("s >= 10 && s <= 365 * 86400", message)
}

/// How long two secrets work: none, or up to thirty days.
pub fn overlap(_: &mut SchemaGenerator) -> Schema {
    let message = "must be a duration up to 30d, such as 24h, or 0s for none";
    duration_of("s <= 30 * 86400", message)
}

/// That the overlap of a rotation ends before the next one. Both texts are ones that [`DURATION`] takes.
pub fn overlap_is_shorter() -> String {
    let [overlap, every] = ["self.overlap", "self.every"].map(seconds);
    format!("!has(self.every) || !has(self.overlap) || {overlap} < {every}")
}

/// Scope-tokens of RFC 6749 section 3.3, a set.
pub fn scopes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": 64, "x-kubernetes-list-type": "set",
        "items": {
            "type": "string", "minLength": 1, "maxLength": 256,
            // Visible ASCII but for the space, the double quote and the backslash.
            "pattern": "^[!#-\\[\\]-~]+$"
        }
    })
}

/// Redirect URIs, a set; each rule says what is wrong with the item.
pub fn redirect_uris(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 32, "x-kubernetes-list-type": "set",
        "items": {
            "type": "string", "minLength": 1, "maxLength": 450,
            "x-kubernetes-validations": [
                rule("isURL(self) && self.matches('^(https?|HTTPS?)://[^/?#]')",
                     "must be an absolute https URI, such as https://app.example.com/callback"),
                rule("!self.contains('#')", "must have no fragment (#…): RFC 6749 section 3.1.2 forbids it"),
                rule("!self.contains('*')", "must have no wildcard (*): redirect URIs are matched exactly, so list each one"),
                rule("!self.matches('^[a-zA-Z]+://[^/?#]*@')", "must have no user information before the host"),
                rule("!self.matches('^[hH][tT][tT][pP]://') || self.matches('^http://(localhost|127(\\\\.[0-9]{1,3}){3}|\\\\[::1\\\\])(:[0-9]+)?([/?].*)?$')",
                     "may be plain http on loopback alone (localhost, 127.0.0.1, [::1]); use https"),
            ]
        }
    })
}

/// Grant types, a set.
pub fn grant_types(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": 8, "x-kubernetes-list-type": "set",
        "items": { "type": "string", "enum": ["authorization_code", "refresh_token", "client_credentials"] }
    })
}

/// A tenant of Microsoft Entra: an ID, a domain, or one of the three names.
pub fn tenant(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": 253,
        "pattern": "^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$"
    })
}

/// More parameters of an authorization request.
pub fn parameters(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 16,
        "additionalProperties": { "type": "string", "maxLength": 1024 },
        "x-kubernetes-validations": [
            rule("self.all(k, k.matches('^[a-zA-Z0-9_.~-]{1,64}$'))",
                 "names must be of letters, digits, and _ . ~ -, 64 at most"),
            rule("self.all(k, !(k in ['response_type', 'response_mode', 'client_id', 'client_secret', 'redirect_uri', 'scope', 'state', 'nonce', 'code', 'code_challenge', 'code_challenge_method', 'request', 'request_uri']))",
                 "may not set the protocol's own parameters, such as redirect_uri, scope or state"),
        ]
    })
}

/// Labels of a Secret.
pub fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 63 },
        "x-kubernetes-validations": [
            rule("self.all(k, !k.startsWith('applink-operator.io/') && !k.startsWith('app.kubernetes.io/managed-by') && k != 'app.kubernetes.io/component')",
                 "may not set labels that the operator keeps: applink-operator.io/…, app.kubernetes.io/managed-by and app.kubernetes.io/component"),
        ]
    })
}

/// Annotations of a Secret.
pub fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 1024 },
        "x-kubernetes-validations": [
            rule("self.all(k, !k.startsWith('applink-operator.io/') && !k.startsWith('kubernetes.io/service-account'))",
                 "may not set annotations under applink-operator.io/ or kubernetes.io/service-account"),
        ]
    })
}

/// Templates by the key that they fill.
pub fn templates(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 16,
        "additionalProperties": { "type": "string", "maxLength": 16384 },
        "x-kubernetes-validations": [
            rule("self.all(k, k.size() <= 253 && k.matches('^[-._a-zA-Z0-9]+$'))",
                 "keys must be Secret keys: letters, digits, -, _ and ."),
        ]
    })
}

/// The types of Secret that a link may write.
pub fn secret_type(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "maxLength": 128,
        "default": "Opaque",
        "x-kubernetes-validations": [
            rule("self in ['Opaque', 'kubernetes.io/basic-auth', 'kubernetes.io/dockerconfigjson'] || self.matches('^servicebinding\\\\.io/[a-z0-9][-a-z0-9]*$')",
                 "must be Opaque, kubernetes.io/basic-auth, kubernetes.io/dockerconfigjson or servicebinding.io/NAME"),
        ]
    })
}

/// A client's identifier (RFC 6749 appendix A.1: visible ASCII and the space).
pub fn client_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$" })
}

/// Clients' identifiers, a set.
pub fn client_ids(g: &mut SchemaGenerator) -> Schema {
    let item = client_id(g);
    json_schema!({ "type": "array", "maxItems": 256, "x-kubernetes-list-type": "set", "items": item })
}

/// The name of a namespace.
pub fn namespace(_: &mut SchemaGenerator) -> Schema {
    Schema::try_from(dns_label()).unwrap_or_default()
}

/// The path of a URL.
pub fn url_path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^(/[-._~A-Za-z0-9]+)+$" })
}

/// Namespace names, a set.
pub fn namespaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "maxItems": 256, "x-kubernetes-list-type": "set", "items": dns_label() })
}

/// Hosts of redirect URIs: a name, or `*.` and a name.
pub fn redirect_hosts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 256, "x-kubernetes-list-type": "set",
        "items": {
            "type": "string", "minLength": 1, "maxLength": 253,
            "pattern": "^(\\*\\.)?([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*|\\[[0-9a-f:.]+\\])$"
        }
    })
}

/// Labels that a namespace must have.
pub fn match_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "minProperties": 1, "maxProperties": 16,
        "additionalProperties": { "type": "string", "maxLength": 63 }
    })
}

/// Conditions, a map by type.
pub fn conditions(g: &mut SchemaGenerator) -> Schema {
    let item = g.subschema_for::<super::common::Condition>();
    json_schema!({
        "type": "array", "maxItems": 16,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": item
    })
}

/// A PEM bundle.
pub fn pem(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "maxLength": 262144,
        "pattern": "-----BEGIN CERTIFICATE-----"
    })
}

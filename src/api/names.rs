//! The names that stand in objects: group, annotations, labels, finalizers.

/// The API group.
pub const GROUP: &str = "applink-operator.io";
/// The field manager of every write.
pub const FIELD_MANAGER: &str = "applink-operator";
/// Holds a link until its client is unregistered and its grant revoked.
pub const LINK_FINALIZER: &str = "applink-operator.io/link";
/// Holds a provider until its links have let go.
pub const PROVIDER_FINALIZER: &str = "applink-operator.io/provider";
/// On a link: where its client was registered, written before the first call.
pub const REGISTERED_AT: &str = "applink-operator.io/registered-at";
/// On a link: `"true"` lets a deletion go through though the provider can't be reached.
pub const FORCE_DELETE: &str = "applink-operator.io/force-delete";
/// On a link: the endpoints that the author accepts after discovery moved them, separated by commas.
pub const ACCEPT_ENDPOINT: &str = "applink-operator.io/accept-token-endpoint";
/// On a link: asks for a new client secret, once for each value; the time of the request is a good
/// one. The old secret works on for `rotation.overlap`, where the provider can.
pub const ROTATE: &str = "applink-operator.io/rotate";
/// The same without an overlap: the old secret, and where possible the tokens it gave, end at once.
pub const ROTATE_NOW: &str = "applink-operator.io/rotate-now";
/// On a link: another value asks for another try at once, also of what the server refused for good. No other
/// annotation does.
pub const RETRY: &str = "applink-operator.io/retry";
/// On a provider: `"true"` makes it the default one.
pub const DEFAULT_PROVIDER: &str = "applink-operator.io/is-default-provider";
/// On a Secret that isn't ours: the name of the link that may take it over.
pub const TAKE_OVER_BY: &str = "applink-operator.io/take-over-by";
/// On our Secrets: the link's name, so that people find their way back; a label where it has room for it, and an
/// annotation.
pub const LINK_NAME: &str = "applink-operator.io/link";
/// On our Secrets: the kind of thing that it holds.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// On our Secrets: who keeps it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGED_BY_VALUE: &str = "applink-operator";
/// On a `ClusterLinkProvider`: the namespace of the operator that it belongs to. Without it, any
/// operator of the cluster takes it.
pub const OPERATOR_NAMESPACE: &str = "applink-operator.io/operator-namespace";
/// On an object in the operator's namespace: the UID of the link or provider that it is kept for.
pub const KEPT_FOR: &str = "applink-operator.io/kept-for";
/// On our Secrets: the serial of the client secret in it; for people, never read back.
pub const SERIAL: &str = "applink-operator.io/serial";
/// On a token's Secret: when the token was got (RFC 3339).
pub const ISSUED_AT: &str = "applink-operator.io/issued-at";
/// On a token's Secret: when it ends (RFC 3339).
pub const EXPIRES_AT: &str = "applink-operator.io/expires-at";
/// On a token's Secret: a keyed fingerprint of what the token was asked for with.
pub const TOKEN_FOR: &str = "applink-operator.io/token-for";
/// On a token's Secret: a keyed fingerprint of its content, so that an edit is seen.
pub const CONTENT: &str = "applink-operator.io/content";
/// On a link: the hash of a one-time ticket, by which a person who may edit the link begins a consent.
pub const AUTHORIZE: &str = "applink-operator.io/authorize";
/// On a link: the code that the end of a consent gave to that person; it makes the grant active.
pub const COMPLETE: &str = "applink-operator.io/complete-authorization";
/// On a Secret with a client's credentials: the hosts that they may be sent to, separated by commas.
pub const ALLOWED_HOSTS: &str = "applink-operator.io/allowed-hosts";
/// On the same: the key that holds the client's identifier, which people may read.
pub const CLIENT_ID_KEY: &str = "applink-operator.io/client-id-key";

//! The machine reasons of conditions, of the pages of a consent, and of the tools. This is the one list of
//! them: what makes a condition takes a
//! [`Reason`], and a test holds the tables of `docs/` to it.

use std::fmt;

macro_rules! reasons {
    ($($name:ident)*) => {
        /// Why a condition is as it is, in one CamelCase word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = concat!("`", stringify!($name), "`: what to do about it is told in `docs/`.")] $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    AccessDenied AddressRefused AdoptNotFound AdoptionMethodMismatch AdoptionNotAllowed AdoptionSecretMissing
    AdoptionSecretWrong AllowedHostsMissing ApiServerError ApiServerUnreachable AssertionKeyMissing
    AssertionRefused AudienceForbidden AudienceUnknown AuthMethodNotOffered AuthorizationRequired Authorized
    ClientConflict ClientIdKeyNotAllowed ClientMayBeOrphaned ClientMissing ClientProtected ClientRejected ClientSecretMissing
    Conflict Connected ConsentUnavailable CredentialsRefused CredentialsUnproved
    DiscoveryNotFound EndpointChanged EndpointMissing
    Forbidden GrantBindingChanged GrantTypeNotAllowed GrantTypeNotOffered HostNotAllowed
    InUse InvalidClient InvalidClientCertificate InvalidClientId InvalidCredential InvalidName InvalidPrivateKey
    InvalidScope InvalidSpec IssuerFixed IssuerMismatch LeaseLost
    MalformedReply MasterKeyInvalid MasterKeyMissing MasterKeyUnread
    NameTaken NamespaceNotAllowed NamespaceTerminating NoAnswer NoDefaultProvider NoRandomness NoRefreshToken
    OtherAccount OverlapUnsupported
    ProviderBusy ProviderCredentialMissing ProviderDeleting ProviderError ProviderNotFound ProviderNotReady
    ProviderRestless ProviderUnauthorized ProviderUnreachable Queued
    RateLimited ReauthorizationRequired RebindNotAllowed RecordError RedirectHostNotAllowed RedirectUriRefused
    RedirectUriRequired Redirected RefreshBegunElsewhere RefreshFailing RefusedByApiServer Registered ReplyTooLarge
    RequestRejected RevocationFailed Rotating RotationUnsupported
    ScopeNotAllowed ScopesNotConsented SecretChanged SecretConflict SecretLifetimeTooShort SecretMissing
    SecretTypeFixed SecretTypeRefused SecretUnwritable SeedMissing ServerError ServiceAccountMissing
    ServiceAccountTokenForbidden SignedRequestRequired Suspended
    TemplateError Terminating TokenExpired TokenFresh TokenLifetimeTooShort TokenMissing
    UnauthorizedClient UnknownScope Unreachable Unsupported UnsupportedAuthMethod UnsupportedGrantType
    UnsupportedTokenType

    // What a page of a consent says.
    Busy Denied IdTokenRefused LinkChanged LinkNotReady NoCode NoTicket NoToken OtherBrowser OtherGrant
    RequestRefused TicketUsed TooManyAtOnce Unasked Unavailable WrongIssuer

    // What the tools say of an object that the operator hasn't looked at.
    NotObserved Outdated
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Tests may write the word.
#[cfg(test)]
impl From<&str> for Reason {
    fn from(word: &str) -> Self {
        let found = Self::ALL.iter().find(|r| r.as_str() == word);
        *found.unwrap_or_else(|| panic!("{word} isn't in the list of reasons"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The reasons in the first column of the tables of a page that begin with the cell `reason`.
    fn told(page: &str) -> Vec<String> {
        let mut inside = false;
        let mut found = Vec::new();
        for line in page.lines() {
            if !line.starts_with('|') {
                inside = false;
                continue;
            }
            let first = line.split('|').nth(1).unwrap_or_default();
            match first.trim() {
                "reason" => inside = true,
                cell if inside => found.extend(
                    cell.split(" (")
                        .next()
                        .unwrap_or_default()
                        .split('`')
                        .skip(1)
                        .step_by(2)
                        .map(str::to_owned),
                ),
                _ => {}
            }
        }
        found
    }

    #[test]
    fn every_reason_is_in_a_table_and_no_other() {
        let page = |name: &str| {
            let path = format!("{}/docs/{name}.md", env!("CARGO_MANIFEST_DIR"));
            told(&std::fs::read_to_string(path).expect("the page"))
        };
        let told: BTreeSet<String> =
            page("links").into_iter().chain(page("providers")).chain(page("connecting")).collect();
        let all: BTreeSet<String> = Reason::ALL.iter().map(|r| r.as_str().to_owned()).collect();
        let missing: Vec<_> = all.difference(&told).collect();
        let strange: Vec<_> = told.difference(&all).collect();
        assert!(missing.is_empty() && strange.is_empty(), "not told: {missing:?}; no reasons: {strange:?}");
    }
}

//! `applink provider`: the bundled provider service.

use crate::domain::{Lifetime, ScopeSet, duration};
use crate::runtime::files;
use crate::runtime::listen::Bounds;
use crate::runtime::peer::TrustedProxies;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::telemetry::{self, LogFormat, TelemetryError};
use crate::server::config::{DEFAULT_SCOPES, MAX_REFRESH_GRACE};
use crate::server::{self, ClientLimits, Config, Issuer, Limits, ServerError, TokenPolicy};
use clap::Args;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The flags, as they came.
#[derive(Debug, Clone, Args)]
pub struct ProviderArgs {
    /// URL that clients know the service by: https (or http), without query, fragment or a slash at
    /// its end. A path is part of every address, so an ingress must not cut it off
    #[arg(long, value_name = "URL", env = "APPLINK_PROVIDER_ISSUER")]
    issuer: String,

    /// Address of the OAuth endpoints
    #[arg(long, value_name = "ADDRESS", env = "APPLINK_PROVIDER_LISTEN", default_value = "0.0.0.0:8080")]
    listen: String,

    /// Address of the admin API, /healthz, /readyz and /metrics; for the operator, not for clients
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "APPLINK_PROVIDER_ADMIN_LISTEN",
        default_value = "0.0.0.0:8081"
    )]
    admin_listen: String,

    /// Address where /healthz and /readyz are too, for a kubelet, which may not reach the admin API
    #[arg(long, value_name = "ADDRESS", env = "APPLINK_PROVIDER_HEALTH_LISTEN")]
    health_listen: Option<String>,

    /// Address where /metrics is too, for who may not reach the admin API
    #[arg(long, value_name = "ADDRESS", env = "APPLINK_PROVIDER_METRICS_LISTEN")]
    metrics_listen: Option<String>,

    /// File with the bearer token of the admin API; a new token in it works at once
    #[arg(long, value_name = "FILE", env = "APPLINK_PROVIDER_ADMIN_TOKEN_FILE")]
    admin_token_file: PathBuf,

    /// SQLite file; made if it isn't there, in a folder that is
    #[arg(long, value_name = "FILE", env = "APPLINK_PROVIDER_DATABASE")]
    database: PathBuf,

    /// Scopes that clients may have, divided by commas
    #[arg(long, value_name = "LIST", env = "APPLINK_PROVIDER_SCOPES", default_value_t = DEFAULT_SCOPES.replace(' ', ","))]
    scopes: String,

    /// How long an access token lives
    #[arg(
        long,
        value_name = "TIME",
        env = "APPLINK_PROVIDER_ACCESS_TOKEN_LIFETIME",
        default_value = "3600s"
    )]
    access_token_lifetime: String,

    /// How long a refresh token lives that isn't used
    #[arg(long, value_name = "TIME", env = "APPLINK_PROVIDER_REFRESH_TOKEN_LIFETIME", default_value = "90d")]
    refresh_token_lifetime: String,

    /// For how long a used refresh token still gives the same reply; after that it revokes its grant
    #[arg(long, value_name = "TIME", env = "APPLINK_PROVIDER_REFRESH_GRACE", default_value = "10s")]
    refresh_grace: String,

    /// Addresses and ranges of the proxies before the OAuth endpoints, whose X-Forwarded-For says where a request
    /// comes from, divided by commas; none where clients connect directly. Left out: a peer may be a proxy
    #[arg(long, value_name = "CIDR", env = "APPLINK_PROVIDER_TRUSTED_PROXIES", value_delimiter = ',', num_args = 1..)]
    trusted_proxies: Vec<String>,

    /// Lets applications register themselves (RFC 7591, RFC 7592), with an initial access token that the
    /// admin API gives
    #[arg(long, env = "APPLINK_PROVIDER_REGISTRATION")]
    registration: bool,

    /// How long requests in flight may take after SIGTERM
    #[arg(long, value_name = "TIME", env = "APPLINK_PROVIDER_DRAIN_TIMEOUT", default_value = "20s")]
    drain_timeout: String,

    /// How long a request's head may take to arrive, and how long an idle connection is kept
    #[arg(long, value_name = "TIME", env = "APPLINK_PROVIDER_HEADER_TIMEOUT", default_value = "10s")]
    header_timeout: String,

    /// How long a request may take after that
    #[arg(long, value_name = "TIME", env = "APPLINK_PROVIDER_REQUEST_TIMEOUT", default_value = "30s")]
    request_timeout: String,

    /// Connections at a time, for each listener; for more, those make room that are idle
    #[arg(long, value_name = "NUMBER", env = "APPLINK_PROVIDER_MAX_CONNECTIONS", default_value = "1024")]
    max_connections: String,

    /// Tokens a second that one client is issued on average; ten times as many at once after a rest
    #[arg(
        long,
        value_name = "NUMBER",
        env = "APPLINK_PROVIDER_CLIENT_TOKENS_PER_SECOND",
        default_value = "50"
    )]
    client_tokens_per_second: String,

    /// Access tokens of one client that haven't ended
    #[arg(
        long,
        value_name = "NUMBER",
        env = "APPLINK_PROVIDER_CLIENT_LIVE_TOKENS",
        default_value = "100000"
    )]
    client_live_tokens: String,

    /// Log lines for people, or as JSON
    #[arg(long, value_enum, env = "APPLINK_PROVIDER_LOG_FORMAT", default_value = "human")]
    log_format: LogFormat,

    /// error, warn, info, debug or trace, or a filter like info,applink_operator=debug
    #[arg(long, value_name = "LEVEL", env = "APPLINK_PROVIDER_LOG_LEVEL", default_value = "info")]
    log_level: String,
}

/// Why the service did not run: one sentence that names the flag, its value and the way out.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// A flag has a value that can't be used.
    #[error("{flag} {value:?} {problem}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it, and the way out.
        problem: String,
    },
    /// Logs could not be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Signals could not be taken.
    #[error("signals can't be handled ({0}); run where the process may install signal handlers")]
    Signals(std::io::Error),
    /// The service could not start.
    #[error(transparent)]
    Server(#[from] ServerError),
}

fn bad(flag: &'static str, value: impl ToString, problem: impl ToString) -> ProviderError {
    ProviderError::Flag { flag, value: value.to_string(), problem: problem.to_string() }
}

impl ProviderArgs {
    /// Checks every flag.
    ///
    /// # Errors
    /// [`ProviderError::Flag`].
    pub fn check(&self) -> Result<Config, ProviderError> {
        Ok(Config {
            issuer: Issuer::parse(&self.issuer).map_err(|e| bad("--issuer", &self.issuer, e))?,
            listen: address("--listen", &self.listen)?,
            admin_listen: address("--admin-listen", &self.admin_listen)?,
            health_listen: optional("--health-listen", self.health_listen.as_deref())?,
            metrics_listen: optional("--metrics-listen", self.metrics_listen.as_deref())?,
            admin_token_file: token_file(&self.admin_token_file)?,
            database: database(&self.database)?,
            scopes: scopes(&self.scopes)?,
            tokens: TokenPolicy {
                access_lifetime: lifetime("--access-token-lifetime", &self.access_token_lifetime)?,
                refresh_lifetime: lifetime("--refresh-token-lifetime", &self.refresh_token_lifetime)?,
                refresh_grace: time(
                    "--refresh-grace",
                    &self.refresh_grace,
                    Duration::ZERO,
                    MAX_REFRESH_GRACE,
                )?,
            },
            registration: self.registration,
            limits: Limits {
                connections: Bounds {
                    header_timeout: time("--header-timeout", &self.header_timeout, SECOND, HOUR)?,
                    connections: connections(&self.max_connections)?,
                    ..Bounds::default()
                },
                request_timeout: time("--request-timeout", &self.request_timeout, SECOND, HOUR)?,
                ..Limits::default()
            },
            clients: ClientLimits {
                tokens_per_second: number("--client-tokens-per-second", &self.client_tokens_per_second)?,
                live_tokens: number("--client-live-tokens", &self.client_live_tokens)?.get(),
            },
            proxies: proxies(&self.trusted_proxies)?,
            drain_timeout: time("--drain-timeout", &self.drain_timeout, Duration::ZERO, HOUR)?,
        })
    }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// As [`Lifetime`] has it.
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn address(flag: &'static str, text: &str) -> Result<SocketAddr, ProviderError> {
    text.parse()
        .map_err(|_| bad(flag, text, "is no address; write an IP address and a port like 0.0.0.0:8080"))
}

fn optional(flag: &'static str, text: Option<&str>) -> Result<Option<SocketAddr>, ProviderError> {
    text.filter(|text| !text.is_empty()).map(|text| address(flag, text)).transpose()
}

fn proxies(values: &[String]) -> Result<TrustedProxies, ProviderError> {
    TrustedProxies::parse(values.iter().map(String::as_str))
        .map_err(|e| bad("--trusted-proxies", &e.0, e.to_string()))
}

fn token_file(path: &Path) -> Result<PathBuf, ProviderError> {
    server::check_token_file(path).map_err(|e| {
        bad("--admin-token-file", path.display(), format!("{e}; make a token with: openssl rand -hex 32"))
    })?;
    Ok(path.to_owned())
}

fn database(path: &Path) -> Result<PathBuf, ProviderError> {
    let folder = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    if path.is_dir() || !folder.is_some_and(Path::is_dir) {
        let text = "is no file in a folder that is there; make the folder first, and name a file in it";
        return Err(bad("--database", path.display(), text));
    }
    Ok(path.to_owned())
}

fn scopes(text: &str) -> Result<ScopeSet, ProviderError> {
    let list = text.replace(',', " ");
    match ScopeSet::parse(&list) {
        Ok(scopes) if !scopes.is_empty() => Ok(scopes),
        Ok(_) => Err(bad("--scopes", text, "has no scope; write one or more, divided by commas")),
        Err(e) => Err(bad("--scopes", text, format!("has a scope that {e}; write names divided by commas"))),
    }
}

fn lifetime(flag: &'static str, text: &str) -> Result<Lifetime, ProviderError> {
    let found = time(flag, text, SECOND, TEN_YEARS)?;
    let seconds = i64::try_from(found.as_secs()).ok().and_then(Lifetime::from_secs);
    seconds.ok_or_else(|| bad(flag, text, "is no lifetime; write one like 3600s"))
}

fn time(flag: &'static str, text: &str, least: Duration, most: Duration) -> Result<Duration, ProviderError> {
    let Ok(found) = duration::parse(text) else {
        return Err(bad(
            flag,
            text,
            "is no time; write numbers with the units d, h, m and s, like 90d or 1h30m",
        ));
    };
    if found < least || found > most {
        let text_range = format!("is out of range; write {}s to {}s", least.as_secs(), most.as_secs());
        return Err(bad(flag, text, text_range));
    }
    Ok(found)
}

fn connections(text: &str) -> Result<usize, ProviderError> {
    let found = text.parse().ok().filter(|n| (1..=100_000).contains(n));
    found.ok_or_else(|| bad("--max-connections", text, "is no number from 1 to 100000; write one, like 1024"))
}

fn number(flag: &'static str, text: &str) -> Result<NonZeroU32, ProviderError> {
    let found = text.parse().ok().filter(|n: &NonZeroU32| n.get() <= 10_000_000);
    found.ok_or_else(|| bad(flag, text, "is no number from 1 to 10000000; write one, like 50"))
}

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// [`ProviderError`], when it can't start.
pub async fn run(args: ProviderArgs) -> Result<(), ProviderError> {
    telemetry::init(args.log_format, &args.log_level)?;
    let config = args.check()?;
    files::raise_limit();
    let shutdown = Shutdown::on_signals().map_err(ProviderError::Signals)?;
    Ok(server::run(config, shutdown.triggered()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: ProviderArgs,
    }

    fn check(folder: &Path, more: &[&str]) -> Result<Config, String> {
        let token = folder.join("token");
        std::fs::write(&token, "0123456789abcdef").expect("written");
        let database = folder.join("db");
        let (token, database) = (token.display().to_string(), database.display().to_string());
        let mut line = vec!["x"];
        for pair in [["--issuer", "https://p"], ["--admin-token-file", &token], ["--database", &database]] {
            if !more.contains(&pair[0]) {
                line.extend(pair);
            }
        }
        line.extend(more);
        let line = Line::try_parse_from(line).map_err(|e| e.to_string())?;
        line.args.check().map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_are_good() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = check(dir.path(), &[]).expect("a configuration");
        assert_eq!(config.tokens.access_lifetime.as_secs(), 3600);
        assert_eq!(config.tokens.refresh_lifetime.as_secs(), 90 * 86_400);
        assert_eq!(config.tokens.refresh_grace, Duration::from_secs(10));
        assert_eq!(config.scopes.iter().count(), 8);
        assert_eq!(config.listen.port(), 8080);
        assert_eq!(config.admin_listen.port(), 8081);
        assert!(!config.registration);
        assert!(check(dir.path(), &["--registration"]).expect("a configuration").registration);
    }

    #[test]
    fn a_bad_value_gives_a_sentence_with_flag_and_value() {
        let dir = tempfile::tempdir().expect("a folder");
        for (flag, value) in [
            ("--issuer", "https://p/"),
            ("--listen", "8080"),
            ("--admin-listen", "localhost"),
            ("--health-listen", "8083"),
            ("--metrics-listen", "8084"),
            ("--admin-token-file", "/does/not/exist"),
            ("--database", "/does/not/exist/db"),
            ("--database", "/"),
            ("--scopes", ","),
            ("--scopes", "a\"b"),
            ("--access-token-lifetime", "0s"),
            ("--refresh-token-lifetime", "ninety"),
            ("--refresh-grace", "1h"),
            ("--drain-timeout", "20"),
            ("--header-timeout", "0s"),
            ("--request-timeout", "x"),
            ("--max-connections", "0"),
            ("--trusted-proxies", "10.0.0.0/33"),
            ("--client-tokens-per-second", "0"),
            ("--client-live-tokens", "many"),
        ] {
            let said =
                check(dir.path(), &[flag, value]).err().unwrap_or_else(|| panic!("{flag} {value}: taken"));
            assert!(said.contains(flag) && said.contains(&format!("{value:?}")), "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }
}

//! `applink ui`: the links as a page, served on loopback with the user's own rights.
//!
//! Only the person who started the command can use it: the printed address carries a secret that is exchanged for a
//! cookie. Nothing is kept here: what the page shows comes from a watch, and what it changes goes to the API server as
//! the user. All pages work without their script, which only makes them follow the watch.
//!
//! | file | what lives there |
//! |---|---|
//! | [`session`] | who may use the page: address, cookie, Host, Origin, form token |
//! | [`live`] | the watch, over all namespaces or those that the user may list |
//! | [`view`] | what pages have in common: rows, badges, times, messages |
//! | [`list`] | the list, its filter and its order |
//! | [`link`] | one link, and its YAML |
//! | [`acts`] | authorise, rotate, view credentials, delete |
//! | [`form`] | the form, and how it becomes an object |
//! | [`review`] | the difference and the YAML before anything is written, and the write |
//! | [`gitops`] | who else keeps a link |

mod acts;
mod form;
mod gitops;
mod link;
mod list;
mod live;
mod review;
mod session;
mod view;

use super::cluster::{Cluster, ClusterArgs};
use super::output::{complain, say};
use super::{Answer, ToolError};
use crate::runtime::shutdown::Shutdown;
use crate::web::page;
use axum::Router;
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::routing::get;
use clap::Args;
use live::Live;
use session::Session;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// The largest form: an object may have a megabyte, but a link is far smaller.
const LARGEST_BODY: usize = 512 * 1024;

/// Flags of `applink ui`.
#[derive(Debug, Args)]
#[command(after_help = "\
The page is for you alone: it is served on this machine's loopback address, and its address carries a secret that works for as
long as the command runs. All that you do there is done with your own rights. Ctrl-C ends it.")]
pub struct UiArgs {
    /// The port on 127.0.0.1; left out: a free one
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What every page needs.
struct App {
    cluster: Cluster,
    live: Live,
    session: Session,
}

/// Serves the page until it is told to stop.
///
/// # Errors
/// [`ToolError`] where the cluster can't be asked, or the port can't be had.
pub async fn run(args: UiArgs) -> Result<Answer, ToolError> {
    let cluster = args.cluster.connect().await?;
    let live = Live::start(&cluster).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))
        .await
        .map_err(|e| ToolError::Config(format!("--port {}: it can't be listened on: {e}", args.port)))?;
    let session = Session::new(listener.local_addr()?.port())
        .map_err(|e| ToolError::Config(format!("the system has no randomness: {e}")))?;
    let shutdown = Shutdown::on_signals()?;
    say(&format!("{}\n", session.address()))?;
    complain("The address above is for you alone. Ctrl-C ends the page.");
    let app = Arc::new(App { cluster, live, session });
    let serve = axum::serve(listener, router(app));
    // Pages hold a connection open for as long as they are shown: there is nothing to drain.
    tokio::select! {
        ended = async { serve.await } => ended?,
        () = shutdown.triggered() => {}
    }
    Ok(Answer::Yes)
}

fn router(app: Arc<App>) -> Router {
    let script = || async {
        ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("script.js"))
            .into_response()
    };
    let one = "/links/{namespace}/{name}";
    let of = |rest: &str| format!("{one}/{rest}");
    Router::new()
        .route("/", get(list::page))
        .route("/events", get(live::events))
        .route("/new", get(form::new))
        .route("/form", get(view::back).post(form::again))
        .route("/review", get(view::back).post(review::page))
        .route("/apply", get(view::back).post(review::apply))
        .route(one, get(link::page))
        .route(&of("yaml"), get(link::yaml))
        .route(&of("edit"), get(form::edit))
        .route(&of("authorise"), get(acts::authorise))
        .route(&of("rotate"), get(acts::rotate_page).post(acts::rotate))
        .route(&of("credentials"), get(acts::credentials_page).post(acts::credentials))
        .route(&of("delete"), get(acts::delete_page).post(acts::delete))
        .fallback(view::nothing_here)
        .layer(axum::extract::DefaultBodyLimit::max(LARGEST_BODY))
        .layer(axum::middleware::from_fn_with_state(app.clone(), session::guard))
        .route("/style.css", get(page::style))
        .route("/script.js", get(script))
        .layer(axum::middleware::from_fn_with_state(app.clone(), session::headers))
        .with_state(app)
}

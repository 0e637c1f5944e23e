//! The list: filter, order, rows.

use super::App;
use super::view::{self, Mood, Row, Text, time};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A browser shows so many rows with ease; who has more filters.
const SHOWN: usize = 500;

/// A column to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Application,
    Direction,
    Status,
    Expires,
}

impl Column {
    const ALL: [Self; 4] = [Self::Application, Self::Direction, Self::Status, Self::Expires];

    const fn key(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Direction => "direction",
            Self::Status => "status",
            Self::Expires => "expires",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Application => "Application",
            Self::Direction => "Direction",
            Self::Status => "Status",
            Self::Expires => "Expires",
        }
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let name = |r: &Row| (r.application.to_lowercase(), r.namespace.clone(), r.name.clone());
        let first = match self {
            Self::Application => Ordering::Equal,
            Self::Direction => a.direction.cmp(b.direction),
            Self::Status => a.mood.cmp(&b.mood).then_with(|| a.status.cmp(&b.status)),
            // What doesn't end comes last.
            Self::Expires => (a.expires.is_none(), &a.expires).cmp(&(b.expires.is_none(), &b.expires)),
        };
        first.then_with(|| name(a).cmp(&name(b)))
    }
}

/// What the address asks for.
#[derive(Debug, Clone)]
struct Wish {
    text: String,
    direction: String,
    status: String,
    namespace: String,
    column: Column,
    falling: bool,
    done: String,
}

const STATES: [(&str, &str); 3] =
    [("ready", "Ready"), ("attention", "Needs attention"), ("progress", "In progress or suspended")];

impl Wish {
    fn read(query: &str) -> Self {
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let get = |name: &str| {
            pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.trim().to_owned()).unwrap_or_default()
        };
        let sort = get("sort");
        let column = sort.strip_prefix('-').unwrap_or(&sort);
        Self {
            text: get("q"),
            direction: get("direction"),
            status: get("status"),
            namespace: get("namespace"),
            column: Column::ALL.into_iter().find(|c| c.key() == column).unwrap_or(Column::Application),
            falling: sort.starts_with('-'),
            done: get("done"),
        }
    }

    fn fits(&self, row: &Row) -> bool {
        let text = self.text.to_lowercase();
        let state = match row.mood {
            Mood::Good => "ready",
            Mood::Bad => "attention",
            Mood::Wait | Mood::Idle => "progress",
        };
        let holds = |part: &str| part.to_lowercase().contains(&text);
        let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        is(&self.direction, row.direction)
            && is(&self.status, state)
            && is(&self.namespace, &row.namespace)
            && (text.is_empty()
                || holds(&row.application)
                || holds(&row.full_name())
                || holds(&row.status)
                || holds(&view::words(&row.status)))
    }

    fn is_filter(&self) -> bool {
        [&self.text, &self.direction, &self.status, &self.namespace].iter().any(|part| !part.is_empty())
    }

    fn sort(&self) -> String {
        format!("{}{}", if self.falling { "-" } else { "" }, self.column.key())
    }

    /// The address of this list in another order.
    fn sorted_by(&self, column: Column) -> String {
        let falling = self.column == column && !self.falling;
        let sort = format!("{}{}", if falling { "-" } else { "" }, column.key());
        let parts = [
            ("q", &self.text),
            ("direction", &self.direction),
            ("status", &self.status),
            ("namespace", &self.namespace),
            ("sort", &sort),
        ];
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        parts.iter().filter(|(_, v)| !v.is_empty()).for_each(|(k, v)| {
            query.append_pair(k, v);
        });
        format!("/?{}", query.finish())
    }
}

/// The list.
pub async fn page(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let wish = Wish::read(&query.unwrap_or_default());
    let all: Vec<Row> = app.live.all().iter().map(|link| Row::of(link)).collect();
    let namespaces: BTreeSet<&str> = all.iter().map(|r| r.namespace.as_str()).collect();
    let mut rows: Vec<&Row> = all.iter().filter(|r| wish.fits(r)).collect();
    rows.sort_by(|a, b| {
        let order = wish.column.compare(a, b);
        if wish.falling { order.reverse() } else { order }
    });
    let main = html! {
        @if wish.done == "deleted" {
            div.note.good role="status" { p { "The deletion was asked for. A link goes from the list once its client is unregistered and its grant revoked." } }
        }
        div.title {
            div {
                h1 { "Application links" }
                p.muted { (scope(&app)) }
            }
            a.button.primary href="/new" { "Create link" }
        }
        (filter(&wish, &namespaces))
        div.count {
            span #count data-part="text" role="status" { (count(rows.len(), all.len(), &wish)) }
            span.live #live data-live="/events" {
                @if app.live.is_lost() { "The cluster doesn't answer; this may be old" } @else { "As of now" }
            }
        }
        div.frame {
            // Shown as cards on a phone, it would be no table any more to a screen reader without its roles.
            table.cards role="table" {
                caption.hidden { "Application links" }
                thead #head role="rowgroup" data-part="html" { tr role="row" {
                    @for column in Column::ALL {
                        @let sort = (wish.column == column).then_some(if wish.falling { "descending" } else { "ascending" });
                        th scope="col" role="columnheader" aria-sort=[sort] {
                            a href=(wish.sorted_by(column)) {
                                (column.title())
                                @match sort {
                                    Some("ascending") => { span aria-hidden="true" { "↑" } }
                                    Some(_) => { span aria-hidden="true" { "↓" } }
                                    None => {}
                                }
                            }
                        }
                    }
                    th scope="col" role="columnheader" { span.hidden { "Actions" } }
                } }
                tbody #rows role="rowgroup" data-part="rows" {
                    @for row in rows.iter().take(SHOWN) { (one(row)) }
                    @if rows.is_empty() { (none(&wish)) }
                }
            }
        }
    };
    view::page(&app, "All", main)
}

fn scope(app: &App) -> Markup {
    match app.live.namespaces() {
        None => html! { "In all namespaces" },
        Some(names) => {
            let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            let more = names.len().saturating_sub(shown.len());
            html! {
                @if names.len() == 1 { "In namespace " } @else { "In the namespaces " }
                (shown.join(", "))
                @if more > 0 { " and " (more) " more" }
                "; you may not list links in others"
            }
        }
    }
}

fn count(shown: usize, all: usize, wish: &Wish) -> String {
    let links = |n: usize| format!("{n} {}", if n == 1 { "link" } else { "links" });
    let cut = if shown > SHOWN { format!("; the first {SHOWN} are shown") } else { String::new() };
    if wish.is_filter() { format!("{shown} of {}{cut}", links(all)) } else { format!("{}{cut}", links(all)) }
}

fn select(name: &str, label: &str, any: &str, now: &str, options: &[(&str, &str)]) -> Markup {
    html! {
        div {
            label for={ "filter-" (name) } { (label) }
            select name=(name) id={ "filter-" (name) } {
                option value="" { (any) }
                @for (value, text) in options { option value=(value) selected[*value == now] { (text) } }
            }
        }
    }
}

fn filter(wish: &Wish, namespaces: &BTreeSet<&str>) -> Markup {
    let directions = ["Incoming", "Outgoing", "Two-way"].map(|d| (d, d));
    // A chosen one stays a choice though its last link went.
    let mut names: BTreeSet<&str> = namespaces.clone();
    if !wish.namespace.is_empty() {
        names.insert(&wish.namespace);
    }
    let names: Vec<(&str, &str)> = names.into_iter().map(|n| (n, n)).collect();
    html! {
        form.filter method="get" action="/" role="search" aria-label="Filter the links" data-filter="" {
            div.wide {
                label for="filter-q" { "Find" }
                input #filter-q type="search" name="q" value=(wish.text) placeholder="Application, namespace or name" autocomplete="off";
            }
            (select("direction", "Direction", "Any direction", &wish.direction, &directions))
            (select("status", "Status", "Any status", &wish.status, &STATES))
            (select("namespace", "Namespace", "All namespaces", &wish.namespace, &names))
            input type="hidden" name="sort" value=(wish.sort());
            button type="submit" { "Filter" }
        }
    }
}

fn one(row: &Row) -> Markup {
    let id = format!("{}.{}", row.namespace, row.name);
    html! {
        tr #{ "row-" (id) } role="row" data-revision=(row.revision) {
            td.first role="cell" data-label="Application" {
                a.name #{ "name-" (id) } href=(row.href("")) { (Text(&row.application)) }
                span.under { (Text(&row.version())) }
                span.under { (row.full_name()) }
            }
            td role="cell" data-label="Direction" { (row.direction) }
            td role="cell" data-label="Status" {
                div {
                    (row.badge())
                    @if !row.message.is_empty() { span.why { (Text(&row.message)) } }
                }
            }
            td role="cell" data-label="Expires" {
                @match &row.expires {
                    Some(at) => (time(at)),
                    None => span.muted title="Nothing of this link ends by itself" { "—" },
                }
            }
            td.actions role="cell" data-label="Actions" { (menu(row, &id)) }
        }
    }
}

fn menu(row: &Row, id: &str) -> Markup {
    html! {
        details.menu name="actions" {
            summary #{ "menu-" (id) } aria-label={ "Actions of " (row.full_name()) } { "Actions" }
            ul {
                @for (action, words) in row.actions() {
                    li { a #{ (action) "-" (id) } .grave[action == "delete"] href=(row.href(action)) { (words) } }
                }
            }
        }
    }
}

fn none(wish: &Wish) -> Markup {
    html! {
        tr #row-none role="row" { td.first role="cell" colspan="5" { div.empty {
            @if wish.is_filter() {
                h2 { "No link fits the filter" }
                p { a href="/" { "Show all" } }
            } @else {
                h2 { "No links yet" }
                p.muted { "A link lets an application call you, or you call it, with OAuth credentials that are kept in a Secret for you." }
                p { a.button.primary href="/new" { "Create the first link" } }
            }
        } } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, mood: Mood, expires: Option<&str>) -> Row {
        Row {
            namespace: "team".into(),
            name: name.into(),
            application: name.to_uppercase(),
            version: None,
            direction: "Incoming",
            mood,
            status: "ProviderNotFound".into(),
            message: String::new(),
            expires: expires.map(str::to_owned),
            revision: "1".into(),
            consents: false,
            rotates: false,
        }
    }

    #[test]
    fn a_filter_and_an_order_are_read_from_the_address_and_written_back() {
        let wish = Wish::read("q=a%26b&status=ready&sort=-expires&direction=&x=y");
        assert_eq!((wish.text.as_str(), wish.column, wish.falling), ("a&b", Column::Expires, true));
        assert_eq!(wish.sorted_by(Column::Expires), "/?q=a%26b&status=ready&sort=expires");
        assert_eq!(wish.sorted_by(Column::Status), "/?q=a%26b&status=ready&sort=status");
        assert_eq!(Wish::read("sort=nonsense").column, Column::Application);
    }

    #[test]
    fn what_needs_a_person_comes_first_and_what_never_ends_last() {
        let (good, bad) = (row("a", Mood::Good, Some("2026-01-01T00:00:00Z")), row("b", Mood::Bad, None));
        assert_eq!(Column::Status.compare(&bad, &good), Ordering::Less);
        assert_eq!(Column::Expires.compare(&bad, &good), Ordering::Greater);
        assert!(Wish::read("q=not+found").fits(&bad) && Wish::read("q=TEAM/b").fits(&bad));
        assert!(!Wish::read("status=ready").fits(&bad) && Wish::read("status=attention").fits(&bad));
    }
}

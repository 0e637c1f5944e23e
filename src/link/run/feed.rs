//! What there is of a kind, and what changes: a list in pages and then a watch, as `kube::runtime::watcher` has
//! it, with the same events. Unlike it, a page isn't read whole: each object is decoded as it comes, so what a
//! page takes in memory is one object, however large a tenant makes those of his namespace.

use futures::io::{AsyncBufRead, AsyncBufReadExt as _};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, WatchEvent};
use kube::runtime::watcher::{self, Error, Event};
use kube::{Client, Error as KubeError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io;
use std::pin::Pin;
use std::time::Duration;

/// So many objects are asked for at a time: the API server holds a page in memory too.
const PAGE: u32 = 50;
/// A page of which nothing comes for so long is asked for again.
const SILENCE: Duration = Duration::from_secs(30);
/// How long one watch lasts, and when it is taken for dead.
const WATCH_SECONDS: u32 = 290;
const DEAD: Duration = Duration::from_secs(300);
/// No object is larger: etcd takes a tenth of it. Nor is what stands around them in a page.
const LARGEST: usize = 16 * 1024 * 1024;

/// What is asked for.
pub(super) struct Kind<T> {
    /// The path of the collection.
    pub(super) path: String,
    /// Whether objects come without spec, status and data.
    pub(super) metadata_only: bool,
    /// The version of an object.
    pub(super) version: fn(&T) -> Option<String>,
}

/// Lists and watches without end. After an error it goes on where it can, and else begins anew: who polls it
/// says how soon.
pub(super) fn feed<T>(client: Client, kind: Kind<T>) -> impl Stream<Item = watcher::Result<Event<T>>> + Send
where
    T: DeserializeOwned + Clone + Send + 'static,
{
    stream::unfold((client, kind, State::Empty), |(client, kind, mut state)| async move {
        loop {
            let (event, next) = step(&client, &kind, state).await;
            state = next;
            if let Some(event) = event {
                return Some((event, (client, kind, state)));
            }
        }
    })
    .boxed()
}

type Bytes = Pin<Box<dyn AsyncBufRead + Send>>;

enum State<T> {
    /// Nothing is known.
    Empty,
    /// The next page is to be asked for.
    Next(Option<String>),
    /// A page is being read.
    Page(Page),
    /// All was listed, at this version.
    Listed(String),
    /// Changes since this version come by themselves.
    Watching(String, BoxStream<'static, kube::Result<WatchEvent<T>>>),
}

type Step<T> = (Option<watcher::Result<Event<T>>>, State<T>);

async fn step<T>(client: &Client, kind: &Kind<T>, state: State<T>) -> Step<T>
where
    T: DeserializeOwned + Clone + Send + 'static,
{
    match state {
        State::Empty => (Some(Ok(Event::Init)), State::Next(None)),
        State::Next(from) => match open(client, kind, from).await {
            Ok(page) => (None, State::Page(page)),
            Err(e) => (Some(Err(Error::InitialListFailed(e))), State::Empty),
        },
        State::Page(mut page) => match page.next().await {
            Ok(Some(object)) => (Some(Ok(Event::InitApply(object))), State::Page(page)),
            Ok(None) => match page.end() {
                Ok(ListMeta { r#continue: Some(from), .. }) if !from.is_empty() => {
                    (None, State::Next(Some(from)))
                }
                Ok(ListMeta { resource_version: Some(at), .. }) if !at.is_empty() => {
                    (Some(Ok(Event::InitDone)), State::Listed(at))
                }
                Ok(_) => (Some(Err(Error::NoResourceVersion)), State::Empty),
                Err(e) => (Some(Err(Error::InitialListFailed(e))), State::Empty),
            },
            Err(e) => (Some(Err(Error::InitialListFailed(e))), State::Empty),
        },
        State::Listed(at) => match watch(client, kind, &at).await {
            Ok(changes) => (None, State::Watching(at, changes)),
            Err(e) if is_gone(&e) => (Some(Err(Error::WatchStartFailed(e))), State::Empty),
            Err(e) => (Some(Err(Error::WatchStartFailed(e))), State::Listed(at)),
        },
        State::Watching(at, mut changes) => {
            let Ok(Some(change)) = tokio::time::timeout(DEAD, changes.next()).await else {
                return (None, State::Listed(at));
            };
            let (object, made): (_, fn(T) -> Event<T>) = match change {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => (object, Event::Apply),
                Ok(WatchEvent::Deleted(object)) => (object, Event::Delete),
                Ok(WatchEvent::Bookmark(mark)) => {
                    return (None, State::Watching(mark.metadata.resource_version, changes));
                }
                Ok(WatchEvent::Error(status)) => {
                    let next = if status.code == 410 { State::Empty } else { State::Watching(at, changes) };
                    return (Some(Err(Error::WatchError(status))), next);
                }
                // One that can't be read is passed over; after any other error the stream ends.
                Err(e) => return (Some(Err(Error::WatchFailed(e))), State::Watching(at, changes)),
            };
            match (kind.version)(&object).filter(|version| !version.is_empty()) {
                Some(version) => (Some(Ok(made(object))), State::Watching(version, changes)),
                None => (Some(Err(Error::NoResourceVersion)), State::Empty),
            }
        }
    }
}

fn is_gone(e: &KubeError) -> bool {
    matches!(e, KubeError::Api(status) if status.code == 410)
}

async fn open<T>(client: &Client, kind: &Kind<T>, from: Option<String>) -> kube::Result<Page> {
    let params = ListParams { limit: Some(PAGE), continue_token: from, ..ListParams::default() };
    let request = Request::new(kind.path.as_str());
    let request = if kind.metadata_only { request.list_metadata(&params) } else { request.list(&params) };
    let request = request.map_err(KubeError::BuildRequest)?;
    let bytes =
        tokio::time::timeout(SILENCE, client.request_stream(request)).await.map_err(|_| silent())??;
    Ok(Page { bytes: Box::pin(bytes), cut: Cut::default() })
}

async fn watch<T>(
    client: &Client,
    kind: &Kind<T>,
    at: &str,
) -> kube::Result<BoxStream<'static, kube::Result<WatchEvent<T>>>>
where
    T: DeserializeOwned + Clone + Send + 'static,
{
    let params = WatchParams { timeout: Some(WATCH_SECONDS), bookmarks: true, ..WatchParams::default() };
    let request = Request::new(kind.path.as_str());
    let request =
        if kind.metadata_only { request.watch_metadata(&params, at) } else { request.watch(&params, at) };
    let request = request.map_err(KubeError::BuildRequest)?;
    let changes = tokio::time::timeout(SILENCE, client.request_events::<T>(request)).await;
    Ok(changes.map_err(|_| silent())??.boxed())
}

fn silent() -> KubeError {
    KubeError::ReadEvents(io::ErrorKind::TimedOut.into())
}

/// What a list says beside its objects.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: Option<String>,
    r#continue: Option<String>,
}

/// A page that is being read.
struct Page {
    bytes: Bytes,
    cut: Cut,
}

impl Page {
    /// The next object of it, or `None` at its end.
    async fn next<T: DeserializeOwned>(&mut self) -> kube::Result<Option<T>> {
        loop {
            let chunk = tokio::time::timeout(SILENCE, self.bytes.fill_buf()).await.map_err(|_| silent())?;
            let chunk = chunk.map_err(KubeError::ReadEvents)?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let (used, whole) = self.cut.feed(chunk).map_err(KubeError::ReadEvents)?;
            self.bytes.consume_unpin(used);
            if whole {
                let object = serde_json::from_slice(&self.cut.object);
                self.cut.object.clear();
                return object.map(Some).map_err(KubeError::SerdeError);
            }
        }
    }

    fn end(self) -> kube::Result<ListMeta> {
        #[derive(Deserialize)]
        struct Rest {
            metadata: ListMeta,
        }
        let rest: Rest = serde_json::from_slice(&self.cut.rest).map_err(KubeError::SerdeError)?;
        Ok(rest.metadata)
    }
}

/// Cuts the objects out of a list: `{"metadata": …, "items": [object, object, …]}`. The one array that stands in
/// the outermost object is that of the objects.
#[derive(Default)]
struct Cut {
    depth: usize,
    in_text: bool,
    escaped: bool,
    in_items: bool,
    /// The bytes of the object so far.
    object: Vec<u8>,
    /// All but the objects.
    rest: Vec<u8>,
}

impl Cut {
    /// Takes from a chunk what it can: how much it took, and whether an object is whole now.
    fn feed(&mut self, chunk: &[u8]) -> io::Result<(usize, bool)> {
        // Where in the chunk the object begins that isn't whole yet.
        let mut begins = 0;
        for (i, &byte) in chunk.iter().enumerate() {
            if self.in_text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => self.in_text = true,
                    b'{' | b'[' => {
                        self.depth += 1;
                        if self.in_items && self.depth == 3 {
                            begins = i;
                        } else if byte == b'[' && self.depth == 2 {
                            self.in_items = true;
                            self.rest.push(byte);
                        }
                    }
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.in_items && self.depth == 2 {
                            self.take(&chunk[begins..=i])?;
                            return Ok((i + 1, true));
                        }
                        if self.depth == 1 {
                            self.in_items = false;
                        }
                    }
                    _ => {}
                }
            }
            if !self.in_items {
                self.rest.push(byte);
                if self.rest.len() > LARGEST {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        if self.in_items && self.depth > 2 {
            self.take(&chunk[begins..])?;
        }
        Ok((chunk.len(), false))
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.object.len() + bytes.len() > LARGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.object.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// Reads a list that comes in chunks of some size.
    fn read(list: &str, size: usize) -> (Vec<Value>, ListMeta) {
        let bytes = futures::io::Cursor::new(list.as_bytes().to_owned());
        let bytes = Box::pin(futures::io::BufReader::with_capacity(size, bytes));
        let mut page = Page { bytes, cut: Cut::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let mut all = Vec::new();
            while let Some(object) = page.next().await.expect("an object") {
                assert!(page.cut.object.is_empty());
                all.push(object);
            }
            (all, page.end().expect("the end"))
        })
    }

    #[test]
    fn a_list_is_cut_into_its_objects() {
        let odd = json!({"a": [1, {"b": "]}\",{["}], "\\": "\\\"", "c": {}, "é": "\u{1f600}"});
        let meta = json!({"resourceVersion": "7", "continue": "next]}", "remainingItemCount": 3});
        for items in [vec![], vec![odd.clone()], vec![json!({}), odd.clone(), odd]] {
            for text in [
                json!({"kind": "List", "metadata": meta, "items": items}).to_string(),
                serde_json::to_string_pretty(&json!({"items": items, "metadata": meta})).expect("JSON"),
            ] {
                for size in [1, 2, 7, 64, 10_000] {
                    let (found, end) = read(&text, size);
                    assert_eq!(found, items, "in {size}: {text}");
                    assert_eq!(
                        (end.resource_version.as_deref(), end.r#continue.as_deref()),
                        (Some("7"), Some("next]}"))
                    );
                }
            }
        }
    }

    #[test]
    fn an_object_without_end_is_refused() {
        let mut cut = Cut::default();
        cut.feed(br#"{"items":[{"a":""#).expect("a beginning");
        let chunk = vec![b'x'; LARGEST / 4];
        let refused = (0..5).find_map(|_| cut.feed(&chunk).err());
        assert_eq!(refused.expect("too large").kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn whatever_stands_in_an_object_it_is_cut_out_whole(
            texts in prop::collection::vec("[\\[\\]{}\",\\\\a\u{e9}\n]{0,12}", 0..6), size in 1usize..40
        ) {
            let items: Vec<_> = texts.iter().map(|t| json!({t: [t, {"x": t}]})).collect();
            let list = json!({"metadata": {"resourceVersion": "1"}, "items": items}).to_string();
            prop_assert_eq!(read(&list, size).0, items);
        }
    }
}

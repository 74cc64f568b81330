//! The sink that posts batches to an HTTP server.
//!
//! A request holds consecutive readings of one source. Its `Idempotency-Key` is made of source and range, and its range is
//! written to the positions before it is sent: whatever happens, it is repeated with the same key and the same content until the
//! server has answered. So a server that remembers keys takes each reading once, also when the collector is killed.
//!
//! A collector restored from an older backup does not know which ranges it posted since, and cuts them anew. Then the server
//! tells copies by the `id` of each record (of CloudEvents, `source` and `id`), which never changes; or `batch_count = 1` makes the
//! key that of the one reading.
//!
//! | answer | what happens |
//! |---|---|
//! | 2xx | confirmed |
//! | none; 408, 409, 425, 429, 5xx | sent again after a while, `Retry-After` at the least |
//! | 401, 403, 404, 405, 407, 410, 3xx | the same: somebody has to look after server or settings, no reading is at fault |
//! | other 4xx, more than one record | sent in halves, until the records that are refused stand alone |
//! | other 4xx, one record | `on_rejected`: sent again after a while, or put aside |

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use fieldgate_config::settings::sink::HttpSink as Settings;
use http_body_util::Full;
use hyper::{
    Method, StatusCode,
    body::Bytes,
    header::{self, HeaderValue},
};
use tokio::{time, time::Instant};

use self::{
    client::{Answer, Client},
    request::{Bounds, Request, encode, media_type},
};
use super::{
    Delivery, Source,
    custody::{BackOff, Custody},
    item::Tally,
    open::read_secret,
    queue::DeliveryReceiver,
};

mod client;
mod request;

/// Posts until the trunk closes the queue. Runs as a task of a `LocalSet`.
pub(crate) async fn run(settings: Settings, custody: Custody, deliveries: DeliveryReceiver) {
    let sink = HttpSink {
        settings,
        custody,
        deliveries,
        queues: BTreeMap::new(),
        client: Client::default(),
    };
    sink.run().await;
}

struct HttpSink {
    settings: Settings,
    custody: Custody,
    deliveries: DeliveryReceiver,
    /// By [`Source::index`]; none is empty. The fan-out bounds their bytes.
    queues: BTreeMap<u32, Queue>,
    client: Client,
}

/// What waits of one source.
struct Queue {
    source: Arc<Source>,
    deliveries: VecDeque<Delivery>,
    /// When the oldest came.
    since: Instant,
    /// Records of a request, if the server refused larger ones.
    count_max: Option<usize>,
}

/// What an answer means for a request.
enum Verdict {
    /// The server has it.
    Taken,
    /// Not now.
    Again(String),
    /// Not from us, or not there.
    Refused(String),
    /// Not with this content.
    Rejected(String),
}

impl HttpSink {
    async fn run(mut self) {
        loop {
            while let Ok(delivery) = self.deliveries.try_recv() {
                self.take(delivery);
            }
            if let Some(index) = self.ready() {
                self.serve(index).await;
                self.custody.save_if_due();
                continue;
            }
            let due = self.queues.values().map(|queue| self.due(queue)).min();
            let received = match due {
                Some(due) => match time::timeout_at(due, self.deliveries.recv()).await {
                    Ok(received) => received,
                    Err(_) => continue,
                },
                None => self.deliveries.recv().await,
            };
            let Some(delivery) = received else { break };
            self.take(delivery);
        }
        self.custody.save();
    }

    fn take(&mut self, delivery: Delivery) {
        let source = delivery.source();
        let known = self.custody.position(source);
        delivery.count_known(known, &self.custody.stats);
        if delivery.last() <= known {
            self.custody.settle(source, delivery.last());
            return;
        }
        let queue = self.queues.entry(source.index).or_insert_with(|| Queue {
            source: Arc::clone(source),
            deliveries: VecDeque::new(),
            since: Instant::now(),
            count_max: None,
        });
        queue.deliveries.push_back(delivery);
    }

    /// Returns the source whose request is due and has waited longest.
    fn ready(&self) -> Option<u32> {
        let now = Instant::now();
        let ready = self.queues.iter().filter(|(_, queue)| self.due(queue) <= now);
        ready
            .min_by_key(|(_, queue)| queue.since)
            .map(|(index, _)| *index)
    }

    /// Returns when a request of this source has to go out.
    fn due(&self, queue: &Queue) -> Instant {
        let last = queue.deliveries.back().map_or(0, Delivery::last);
        if let Some(cut) = self.custody.positions.cut(&queue.source) {
            // A range that was begun is repeated as a whole. If its end does not come, it never will: the gateway lost it.
            return if last >= cut {
                queue.since
            } else {
                queue.since + CUT_WAIT
            };
        }
        let count = last - self.custody.position(&queue.source);
        let bytes: usize = queue.deliveries.iter().map(Delivery::bytes).sum();
        let is_full =
            count >= u64::from(self.settings.batch_count) || bytes as u64 >= self.settings.batch_bytes;
        if is_full {
            queue.since
        } else {
            queue.since + self.settings.linger
        }
    }

    /// Cuts a request of one source and sends it until it is settled.
    async fn serve(&mut self, index: u32) {
        let mut back_off = BackOff::new();
        loop {
            let Some(queue) = self.queues.get(&index) else {
                return;
            };
            let source = Arc::clone(&queue.source);
            let Some(request) = self.cut(queue) else {
                self.queues.remove(&index);
                return;
            };
            if request.records == 0 {
                self.settle(index, &request, request.tally);
                return;
            }
            self.custody.positions.introduce(&source);
            self.custody.positions.set_cut(&source, Some(request.last));
            let (wait, is_new, reason) = match self.send(&source, &request).await {
                Ok((Verdict::Taken, _)) => {
                    if self.custody.stats.taking() {
                        tracing::info!(url = %self.settings.url, "the server takes readings");
                    }
                    self.settle(index, &request, request.tally);
                    return;
                }
                Ok((Verdict::Rejected(reason), _)) if request.records > 1 => {
                    tracing::debug!(reason, records = request.records, "refused; sent in halves");
                    let halved = request.records / 2;
                    self.custody.positions.set_cut(&source, None);
                    if let Some(queue) = self.queues.get_mut(&index) {
                        queue.count_max = Some(halved);
                    }
                    continue;
                }
                Ok((Verdict::Rejected(reason), _)) => match self.put_aside(index, &reason) {
                    Ok(()) => {
                        self.settle(index, &request, Tally::NOTHING);
                        return;
                    }
                    Err(error) => (back_off.next(), self.custody.stats.refused(error.clone()), error),
                },
                Ok((Verdict::Refused(reason), wait)) => {
                    let is_new = self.custody.stats.refused(reason.clone());
                    (back_off.next().max(wait), is_new, reason)
                }
                Ok((Verdict::Again(reason), wait)) => {
                    let is_new = self.custody.stats.away(reason.clone());
                    (back_off.next().max(wait), is_new, reason)
                }
                Err(reason) => (back_off.next(), self.custody.stats.away(reason.clone()), reason),
            };
            if is_new {
                tracing::warn!(url = %self.settings.url, reason, "the server does not take readings");
            }
            if self.deliveries.is_closed() {
                // The node stops; the range stays open in the positions.
                self.custody.save();
                return;
            }
            time::sleep(wait.min(WAIT_MAX)).await;
        }
    }

    fn cut(&self, queue: &Queue) -> Option<Request> {
        let known = self.custody.position(&queue.source);
        let cut = self.custody.positions.cut(&queue.source);
        let count_max = usize::try_from(self.settings.batch_count).unwrap_or(usize::MAX);
        let bytes_max = usize::try_from(self.settings.batch_bytes).unwrap_or(usize::MAX);
        // A range that was begun is as long as it was, whatever the settings say now.
        let bounds = match cut {
            Some(last) => Bounds {
                count_max: usize::MAX,
                bytes_max: usize::MAX,
                last_max: last,
            },
            None => Bounds {
                count_max: queue.count_max.unwrap_or(count_max),
                bytes_max,
                last_max: u64::MAX,
            },
        };
        Request::cut(&self.custody.output, queue.deliveries.iter(), known, &bounds)
    }

    async fn send(&mut self, source: &Source, request: &Request) -> Result<(Verdict, Duration), String> {
        let saved = self.custody.save_now();
        saved.map_err(|error| format!("the range of a request cannot be kept: {error}"))?;
        let token = self.settings.token.as_ref().map(read_secret).transpose()?;
        let mut post = hyper::Request::builder()
            .method(Method::POST)
            .uri(self.settings.url.target.as_str())
            .header(header::HOST, self.settings.url.authority.as_str())
            .header(
                header::USER_AGENT,
                concat!("fieldgate/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::CONTENT_TYPE, media_type(self.custody.output.format))
            .header("Idempotency-Key", request.key(source));
        if self.settings.gzip {
            post = post.header(header::CONTENT_ENCODING, "gzip");
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.as_str()))
                .map_err(|_| "the token has characters that a header cannot hold".to_owned())?;
            value.set_sensitive(true);
            post = post.header(header::AUTHORIZATION, value);
        }
        let body = Full::new(Bytes::from(encode(&self.settings, &request.body)));
        let post = post.body(body).map_err(|error| error.to_string())?;
        let answer = self.client.post(&self.settings, post).await?;
        let wait = answer.retry_after.unwrap_or_default();
        Ok((judge(&answer), wait))
    }

    fn put_aside(&mut self, index: u32, reason: &str) -> Result<(), String> {
        let Some(queue) = self.queues.get(&index) else {
            return Ok(());
        };
        let known = self.custody.positions.of(&queue.source);
        let item = queue
            .deliveries
            .iter()
            .flat_map(|delivery| delivery.items(known))
            .next();
        match item {
            Some(item) => self.custody.put_aside(&item, reason),
            None => Ok(()),
        }
    }

    /// Notes that the server, or the file aside, has a range.
    fn settle(&mut self, index: u32, request: &Request, tally: Tally) {
        let Some(queue) = self.queues.get_mut(&index) else {
            return;
        };
        tally.count(&self.custody.stats);
        self.custody.settle(&queue.source, request.last);
        self.custody.positions.set_cut(&queue.source, None);
        // Carefully up again after a refusal, so that one bad reading costs few requests.
        queue.count_max = queue
            .count_max
            .map(|count| count * 2)
            .filter(|count| *count < self.settings.batch_count as usize);
        queue.deliveries.retain(|delivery| delivery.last() > request.last);
        queue.since = Instant::now();
        if queue.deliveries.is_empty() {
            self.queues.remove(&index);
        }
    }
}

fn judge(answer: &Answer) -> Verdict {
    let status = answer.status;
    let text = if answer.text.is_empty() {
        String::new()
    } else {
        format!(": {}", answer.text)
    };
    let reason = format!("the server answers {status}{text}");
    if status.is_success() {
        return Verdict::Taken;
    }
    match status {
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::CONFLICT
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS => Verdict::Again(reason),
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED
        | StatusCode::GONE => Verdict::Refused(reason),
        status if status.is_client_error() => Verdict::Rejected(reason),
        status if status.is_server_error() => Verdict::Again(reason),
        _ => Verdict::Refused(reason),
    }
}

/// How long the end of a range that was begun is waited for.
const CUT_WAIT: Duration = Duration::from_secs(30);
/// Longest wait between two attempts, whatever `Retry-After` says.
const WAIT_MAX: Duration = Duration::from_secs(300);

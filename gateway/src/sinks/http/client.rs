//! The connection of the HTTP sink: HTTP/1.1 over TCP or TLS, kept open between requests.

use std::time::Duration;

use fieldgate_config::settings::sink::HttpSink as Settings;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time,
};

use crate::sinks::tls;

/// A connection to the server, made anew when it is needed.
#[derive(Default)]
pub(crate) struct Client {
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// What the server said.
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// How long it wants to be left alone (`Retry-After` in seconds).
    pub(crate) retry_after: Option<Duration>,
    /// The beginning of what it said, for people.
    pub(crate) text: String,
}

impl Client {
    /// Posts a request and takes the answer, within the time of the settings.
    ///
    /// # Errors
    /// In words, if there is no answer.
    pub(crate) async fn post(
        &mut self,
        settings: &Settings,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, String> {
        let answered = time::timeout(settings.timeout, self.exchange(settings, request)).await;
        let answer = match answered {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", settings.timeout.as_secs())),
        };
        if answer.is_err() {
            self.sender = None;
        }
        answer
    }

    async fn exchange(
        &mut self,
        settings: &Settings,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, String> {
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            Some(_) | None => connect(settings).await?,
        };
        sender.ready().await.map_err(|error| error.to_string())?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| with_cause(&error))?;
        let answer = read(response).await?;
        self.sender = Some(sender);
        Ok(answer)
    }
}

async fn connect(settings: &Settings) -> Result<SendRequest<Full<Bytes>>, String> {
    let (host, port) = (settings.url.address.host(), settings.url.address.port());
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    if settings.url.is_https {
        shake_hands(tls::connect(&settings.tls, host, stream).await?).await
    } else {
        shake_hands(stream).await
    }
}

async fn shake_hands<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // It ends with the sender, or with the server; whoever sends next hears of it.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

async fn read(response: Response<Incoming>) -> Result<Answer, String> {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = match body {
        Ok(body) => body.to_bytes(),
        // The status counts, and it is known. A server that goes on talking is not listened to: the connection is given up.
        Err(error) if status.is_success() => return Err(format!("the answer does not end: {error}")),
        Err(_) => Bytes::new(),
    };
    let text = String::from_utf8_lossy(&body);
    let text = text
        .chars()
        .take(TEXT_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    Ok(Answer {
        status,
        retry_after,
        text,
    })
}

fn with_cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Characters of an answer that people are shown.
const TEXT_CHARS_MAX: usize = 200;

//! `fieldgate demo`: gateway, relay and collector in one process, to see in a minute what it is about.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use fieldgate_config::settings::Settings;
use fieldgate_hsm::{Algorithm, SoftwareSigner};
use rumqttc::{AsyncClient, MqttOptions, QoS};
use serde::Serialize;
use tokio::{task::LocalSet, time};

use super::{
    Failure, print, print_json,
    run::{EndSignals, control_runtime, harden},
};
use crate::{
    cli::DemoArgs,
    logs,
    runtime::{
        StartError,
        clock::{self, Clock},
        keys::Identity,
        start::{self, Options, Running},
    },
    sinks::stdout::Style,
};

#[derive(Serialize)]
struct Ready {
    event: &'static str,
    mqtt: SocketAddr,
    dir: PathBuf,
    gateway: String,
    relay: String,
    collector: String,
}

pub(super) fn run(args: &DemoArgs) -> Result<(), Failure> {
    if let Some(address) = args.mqtt.filter(|address| !address.ip().is_loopback()) {
        return Err(Failure::input(format!("--mqtt {address} is not a loopback address"))
            .hint("the demo takes anonymous clients, so it stays on this machine; see `fieldgate run` for a real gateway"));
    }
    logs::start("warn", logs::Format::Text);
    harden();
    let temporary;
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => {
            temporary = tempfile::Builder::new()
                .prefix("fieldgate-demo-")
                .tempdir()
                .map_err(|error| Failure::chain("temporary directory", &error))?;
            temporary.path().to_owned()
        }
    };
    std::fs::create_dir_all(&dir).map_err(|error| Failure::chain(&dir.display().to_string(), &error))?;
    let runtime = control_runtime()?;
    LocalSet::new().block_on(&runtime, serve(args, &dir))
}

async fn serve(args: &DemoArgs, dir: &Path) -> Result<(), Failure> {
    let style = if args.json { Style::Events } else { Style::Pretty };
    let [gateway, relay, collector] = [identity()?, identity()?, identity()?];
    let ids = [&gateway, &relay, &collector].map(|identity| identity.history().identifier().to_string());
    let [gateway_id, relay_id, collector_id] = &ids;

    let settings = settings(dir, &relay_file(gateway_id, collector_id))?;
    let relay = start(&settings, relay, style).await?;
    let link = relay
        .links
        .first()
        .copied()
        .ok_or_else(|| Failure::new("the relay does not listen"))?;

    let settings = self::settings(dir, &collector_file(link, relay_id, gateway_id))?;
    let collector = start(&settings, collector, style).await?;

    let gateway = start_gateway(
        args,
        dir,
        gateway,
        &gateway_file(link, relay_id, collector_id),
        style,
    )
    .await?;
    let mqtt = gateway
        .mqtt
        .first()
        .copied()
        .ok_or_else(|| Failure::new("the gateway does not listen"))?;

    // Whoever reads the first line may signal the demo at once.
    let end = EndSignals::listen()?;
    if args.json {
        let [gateway, relay, collector] = ids;
        print_json(&Ready {
            event: "ready",
            mqtt,
            dir: dir.to_owned(),
            gateway,
            relay,
            collector,
        })?;
    } else {
        print(&welcome(mqtt, link, dir, &ids, args.simulate))?;
    }
    for number in 1..=args.simulate {
        tokio::task::spawn_local(simulate(number, mqtt));
    }
    wait(end, &mut [gateway, collector, relay]).await
}

/// Starts the gateway; if nobody asked for a port and the usual one is taken, on a free one.
async fn start_gateway(
    args: &DemoArgs,
    dir: &Path,
    identity: Identity,
    file: &dyn Fn(SocketAddr) -> String,
    style: Style,
) -> Result<Running, Failure> {
    let usual = SocketAddr::from(([127, 0, 0, 1], 1883));
    let address = args.mqtt.unwrap_or_else(|| {
        if std::net::TcpListener::bind(usual).is_ok() {
            usual
        } else {
            SocketAddr::from(([127, 0, 0, 1], 0))
        }
    });
    start(&settings(dir, &file(address))?, identity, style).await
}

async fn start(settings: &Settings, identity: Identity, style: Style) -> Result<Running, Failure> {
    let options = Options {
        stdout: Some(style),
        ..Options::new(Clock::bare())
    };
    start::start(settings, identity, options)
        .await
        .map_err(StartError::into_failure)
}

fn identity() -> Result<Identity, Failure> {
    let signer =
        SoftwareSigner::generate(Algorithm::P256).map_err(|error| Failure::chain("software key", &error))?;
    Identity::in_memory(signer, clock::wall()).map_err(StartError::into_failure)
}

fn settings(dir: &Path, text: &str) -> Result<Settings, Failure> {
    let loaded = fieldgate_config::load_str("demo", text, dir, "demo");
    loaded
        .settings
        .ok_or_else(|| Failure::new(loaded.problems.render_text(fieldgate_config::Colour::None, 100)))
}

/// What all three files begin with. The identity section is not looked at: the keys are in memory.
fn head(name: &str) -> String {
    format!(
        "[node]\nname = \"{name}\"\nstate_dir = \"{name}\"\ncontrol_socket = \"{name}/control.sock\"\nshards = 1\n\
         [identity]\nfile = \"{name}/key\"\npassphrase = {{ env = \"FIELDGATE_DEMO\" }}\n"
    )
}

fn relay_file(gateway: &str, collector: &str) -> String {
    head("demo-relay")
        + &format!(
            "[link.tcp]\nlisten = [\"127.0.0.1:0\"]\n[relay]\n\
             [[relay.member]]\nname = \"demo-gateway\"\nidentifier = \"{gateway}\"\nreach = [\"demo-collector\"]\n\
             [[relay.member]]\nname = \"demo-collector\"\nidentifier = \"{collector}\"\nhold = [\"demo-collector\"]\n"
        )
}

fn collector_file(link: SocketAddr, relay: &str, gateway: &str) -> String {
    head("demo-collector")
        + &format!(
            "[collector]\nregister = [{{ name = \"demo-collector\", relay = {{ address = \"{link}\", identifier = \"{relay}\" }} }}]\n\
             [[collector.gateway]]\nname = \"demo-gateway\"\nidentifier = \"{gateway}\"\n\
             [[collector.sink]]\nkind = \"file\"\npath = \"-\"\n"
        )
}

fn gateway_file(link: SocketAddr, relay: &str, collector: &str) -> impl Fn(SocketAddr) -> String {
    let rest = format!(
        "[[uplink]]\nname = \"demo\"\ncollector = \"{collector}\"\nvia = \"demo-collector\"\n\
         relay = {{ address = \"{link}\", identifier = \"{relay}\" }}\n"
    );
    move |mqtt| head("demo-gateway") + &format!("[mqtt]\nlisten = [\"{mqtt}\"]\nanonymous = true\n") + &rest
}

fn welcome(mqtt: SocketAddr, link: SocketAddr, dir: &Path, ids: &[String; 3], simulated: u16) -> String {
    let port = if mqtt.port() == 1883 {
        String::new()
    } else {
        format!(" -p {}", mqtt.port())
    };
    let simulated = match simulated {
        0 => String::new(),
        1 => "\nOne simulated device publishes once a second.\n".to_owned(),
        count => format!("\n{count} simulated devices publish once a second.\n"),
    };
    format!(
        "fieldgate demo: gateway, relay and collector run in this process.\n\n\
         \x20 gateway    {}  takes MQTT on {mqtt}, keeps readings in {}\n\
         \x20 relay      {}  on {link}, sees ciphertext only\n\
         \x20 collector  {}  prints what arrives\n\n\
         Publish from another terminal:\n\n\
         \x20 mosquitto_pub -h {}{port} -q 1 -i press-1 -t press-1/temperature -m 21.5\n{simulated}\n\
         Each reading appears here with the path it took. Ctrl-C ends the demo.\n\n",
        short(&ids[0]),
        dir.display(),
        short(&ids[1]),
        short(&ids[2]),
        mqtt.ip(),
    )
}

/// Returns the beginning of an identifier: enough to tell three apart.
fn short(identifier: &str) -> String {
    identifier.chars().take(12).collect::<String>() + "…"
}

/// One simulated device: a temperature that wanders, once a second, over a real MQTT connection.
async fn simulate(number: u16, mqtt: SocketAddr) {
    let name = format!("sim-{number}");
    let mut options = MqttOptions::new(&name, mqtt.ip().to_string(), mqtt.port());
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(options, 4);
    tokio::task::spawn_local(async move {
        loop {
            if events.poll().await.is_err() {
                time::sleep(Duration::from_secs(1)).await;
            }
        }
    });
    let mut ticks = time::interval(Duration::from_secs(1));
    let mut tenths = 180 + i32::from(number % 50);
    for step in 0_i32.. {
        ticks.tick().await;
        // A slow triangle: plausible, and the same in every run.
        tenths += if (step / 30) % 2 == 0 { 1 } else { -1 };
        let value = format!("{}.{}", tenths / 10, tenths % 10);
        if client
            .publish(format!("{name}/temperature"), QoS::AtLeastOnce, false, value)
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Waits for Ctrl-C, then stops the nodes in the order of the data.
async fn wait(mut end: EndSignals, nodes: &mut [Running; 3]) -> Result<(), Failure> {
    let [gateway, collector, relay] = nodes;
    let result = tokio::select! {
        () = end.wait() => Ok(()),
        Some(reason) = gateway.broken.recv() => Err(Failure::new(reason)),
        Some(reason) = collector.broken.recv() => Err(Failure::new(reason)),
        Some(reason) = relay.broken.recv() => Err(Failure::new(reason)),
    };
    for node in nodes {
        node.stop();
    }
    result
}

//! Other people's clients and test suites against a real gateway. `protocol-adapters/mqtt/INTEROP.md` has the table of what runs.

mod client;
mod driven;
mod mosquitto;
mod rumqtt;
mod scenario;
#[cfg(feature = "public-suites")]
mod suites;

use self::{
    client::{Client, Message, Place, Properties, Transport},
    driven::Driven,
    mosquitto::Mosquitto,
    rumqtt::Rumqtt,
    scenario::Make,
};
use crate::harness::{
    pki::Pki,
    ports,
    process::{Process, command},
    site::Site,
};

/// A gateway with every listener, and where they are.
struct Gateway {
    site: Site,
    places: Vec<Place>,
}

impl Gateway {
    fn start() -> Self {
        let mut site = Site::new().without_broker();
        let dir = site.gateway.dir.clone();
        let pki = Pki::new(&dir, "plant");
        pki.server("server");
        let device = pki.device("device", "press-1", &[], 1);
        let [tls, ws, wss] = [(); 3].map(|()| ports::free());
        let secured = "certificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"plant.pem\"\n";
        site.gateway.edit(
            "alarm_topics = ",
            "anonymous = true\nconnects_per_second_max = 0\nalarm_topics = ",
        );
        site.gateway.append(&format!(
            "\n[mqtt.tls]\nlisten = [\"127.0.0.1:{tls}\"]\n{secured}\
             \n[mqtt.websocket]\nlisten = [\"127.0.0.1:{ws}\"]\npath = \"/mqtt\"\n\
             \n[mqtt.websocket.tls]\nlisten = [\"127.0.0.1:{wss}\"]\n{secured}\
             \n[[mqtt.device]]\nname = \"press-1\"\ncertificate = {{ subject_cn = \"press-1\" }}\npublish = [\"i/#\"]\n"
        ));
        site.gateway.start();
        let places = [
            (Transport::Tcp, site.mqtt.port()),
            (Transport::Tls, tls),
            (Transport::Ws, ws),
            (Transport::Wss, wss),
        ]
        .map(|(transport, port)| Place {
            transport,
            host: site.mqtt.ip().to_string(),
            port,
            path: "/mqtt",
            ca: pki.ca(),
            certificate: device.certificate.clone(),
            key: device.key.clone(),
            version: 5,
            id: String::new(),
            clean: true,
            expiry_secs: 0,
            will: None,
        })
        .into();
        Self { site, places }
    }
}

/// Goes through the scenario by both versions and the transports that the client speaks.
fn scenario(make: Make, transports: &[Transport]) {
    let gateway = Gateway::start();
    for place in &gateway.places {
        if !transports.contains(&place.transport) {
            continue;
        }
        for version in VERSIONS {
            let id = format!("{:?}-{version}", place.transport).to_lowercase();
            scenario::run(
                make,
                &Place {
                    id,
                    version,
                    ..place.clone()
                },
            );
        }
    }
    gateway.site.gateway.status();
}

#[test]
fn paho_goes_through_the_scenario() {
    scenario(|| Box::new(Driven::new("paho")), &EVERY_TRANSPORT);
}

#[test]
fn gmqtt_goes_through_the_scenario() {
    scenario(
        || Box::new(Driven::new("gmqtt")),
        &[Transport::Tcp, Transport::Tls],
    );
}

#[test]
fn aiomqtt_goes_through_the_scenario() {
    scenario(|| Box::new(Driven::new("aiomqtt")), &EVERY_TRANSPORT);
}

#[test]
fn mqtt_js_goes_through_the_scenario() {
    scenario(|| Box::new(Driven::new("MQTT.js")), &EVERY_TRANSPORT);
}

#[test]
fn mosquitto_goes_through_the_scenario() {
    scenario(
        || Box::new(Mosquitto::default()),
        &[Transport::Tcp, Transport::Tls],
    );
}

#[test]
fn rumqttc_goes_through_the_scenario() {
    scenario(|| Box::new(Rumqtt::default()), &[Transport::Tcp]);
}

#[test]
fn every_client_hears_every_other() {
    let gateway = Gateway::start();
    let place = &gateway.places[0];
    let makes: [(&str, Make); 6] = [
        ("paho", || Box::new(Driven::new("paho"))),
        ("gmqtt", || Box::new(Driven::new("gmqtt"))),
        ("aiomqtt", || Box::new(Driven::new("aiomqtt"))),
        ("mqtt-js", || Box::new(Driven::new("MQTT.js"))),
        ("mosquitto", || Box::new(Mosquitto::default())),
        ("rumqttc", || Box::new(Rumqtt::default())),
    ];
    let mut clients: Vec<(String, Box<dyn Client>)> = Vec::new();
    for version in VERSIONS {
        for (name, make) in makes {
            let mut client = make();
            let id = format!("{name}-{version}");
            client.connect(&Place {
                version,
                id: id.clone(),
                ..place.clone()
            });
            client.subscribe("i/all", 2);
            clients.push((id, client));
        }
    }
    for number in 0..clients.len() {
        let (id, speaker) = &mut clients[number];
        let qos = u8::try_from(number % 3).expect("0 to 2");
        let message = Message::new("i/all", &format!("{id} says häh?"), qos);
        speaker.publish(&message);
        for (id, listener) in &mut clients {
            assert_eq!(listener.message(), message, "at {id}");
        }
    }
    for (_, client) in &mut clients {
        client.disconnect();
    }
}

#[test]
fn mosquitto_rr_gets_its_answer() {
    let gateway = Gateway::start();
    let mut responder = Driven::new("paho");
    responder.connect(&gateway.places[0].of("responder"));
    responder.subscribe("i/request", 1);
    let port = gateway.places[0].port.to_string();
    for (version, response) in [("mqttv5", "i/response/5"), ("mqttv311", "i/response/4")] {
        let mut requester = command(&["mosquitto_rr", "-h", "127.0.0.1", "-p", &port, "-V", version]);
        requester.args(["-q", "1", "-t", "i/request", "-e", response, "-m", "how warm?"]);
        if version == "mqttv5" {
            requester.args(["-D", "publish", "correlation-data", "request-7"]);
        }
        let mut requester = Process::spawn("mosquitto_rr", &mut requester);
        let request = responder.message();
        let asked = &request.properties;
        if version == "mqttv5" {
            assert_eq!(asked.response_topic.as_deref(), Some(response), "§4.10");
            assert_eq!(asked.correlation_data.as_deref(), Some("request-7"), "§4.10");
        }
        responder.publish(&Message {
            properties: Properties {
                correlation_data: asked.correlation_data.clone(),
                ..Properties::default()
            },
            ..Message::new(response, "21.5 °C", 1)
        });
        requester.wait_for_text("21.5 °C");
        assert!(requester.wait().success(), "{version}");
    }
    responder.disconnect();
}

const EVERY_TRANSPORT: [Transport; 4] = [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];
/// Protocol levels.
const VERSIONS: [u8; 2] = [4, 5];

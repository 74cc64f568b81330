"""A stock MQTT client that does what the system tests tell it: `client.py paho|gmqtt|aiomqtt`.

One JSON object per line comes in and says what to do; one per line goes out and says what has become of it, and one for each
message that arrives. What the objects hold is described in `tests/it/interop/driven.rs`; `client.mjs` is the same for MQTT.js.
"""

import asyncio
import json
import ssl
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions


LINES = threading.Lock()


def say(what, **more):
    """Writes one line; threads do not cut into each other's."""
    with LINES:
        print(json.dumps({"is": what, **more}, ensure_ascii=False), flush=True)


def tls_of(place):
    """Returns the TLS context that a place asks for, or None."""
    if place["transport"] not in ("tls", "wss"):
        return None
    context = ssl.create_default_context(cafile=place["ca"])
    context.load_cert_chain(place["certificate"], place["key"])
    return context


def paho_properties(packet_type, wanted):
    """Returns properties of a PUBLISH or a will as paho has them."""
    properties = Properties(packet_type)
    if "content_type" in wanted:
        properties.ContentType = wanted["content_type"]
    if "response_topic" in wanted:
        properties.ResponseTopic = wanted["response_topic"]
    if "correlation_data" in wanted:
        properties.CorrelationData = wanted["correlation_data"].encode()
    if "expiry_secs" in wanted:
        properties.MessageExpiryInterval = wanted["expiry_secs"]
    for pair in wanted.get("user", []):
        properties.UserProperty = tuple(pair)
    return properties


def paho_message(message):
    """Says that a message of paho has arrived."""
    found, of = {}, message.properties
    if of is not None:
        if hasattr(of, "ContentType"):
            found["content_type"] = of.ContentType
        if hasattr(of, "ResponseTopic"):
            found["response_topic"] = of.ResponseTopic
        if hasattr(of, "CorrelationData"):
            found["correlation_data"] = of.CorrelationData.decode()
        if hasattr(of, "MessageExpiryInterval"):
            found["expiry_secs"] = of.MessageExpiryInterval
        if hasattr(of, "UserProperty"):
            found["user"] = [list(pair) for pair in of.UserProperty]
    payload = message.payload.decode()
    say("message", topic=str(message.topic), payload=payload, qos=message.qos, retain=bool(message.retain), properties=found)


def connect_properties(place):
    """Returns the properties of CONNECT, or None before MQTT 5.0."""
    if place["version"] != 5:
        return None
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = place["expiry_secs"]
    return properties


class Paho:
    """Eclipse Paho, with its network loop in a thread of its own."""

    def connect(self, place):
        is_5, is_clean = place["version"] == 5, place["clean"]
        transport = "websockets" if place["transport"] in ("ws", "wss") else "tcp"
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=place["id"],
            protocol=mqtt.MQTTv5 if is_5 else mqtt.MQTTv311,
            transport=transport,
            clean_session=None if is_5 else is_clean,
        )
        if transport == "websockets":
            self.client.ws_set_options(path=place["path"])
        if tls := tls_of(place):
            self.client.tls_set_context(tls)
        if will := place.get("will"):
            properties = Properties(PacketTypes.WILLMESSAGE) if is_5 else None
            self.client.will_set(will["topic"], will["payload"], will["qos"], will["retain"], properties)
        self.is_5 = is_5
        self.granted = None
        self.done = threading.Semaphore(0)
        self.client.on_connect = self.on_connect
        self.client.on_subscribe = self.on_subscribe
        self.client.on_publish = lambda *_: self.done.release()
        self.client.on_message = lambda _client, _data, message: paho_message(message)
        self.client.on_disconnect = lambda *_: self.done.release()
        extra = {"clean_start": is_clean, "properties": connect_properties(place)} if is_5 else {}
        self.client.connect(place["host"], place["port"], **extra)
        self.client.loop_start()
        self.done.acquire()
        say("connected", present=self.present)

    def on_connect(self, _client, _data, flags, reason, _properties):
        if reason.is_failure:
            say("refused", why=str(reason))
        self.present = flags.session_present
        self.done.release()

    def on_subscribe(self, _client, _data, _mid, reasons, _properties):
        self.granted = reasons[0].value
        self.done.release()

    def subscribe(self, wish):
        if self.is_5:
            self.client.subscribe(wish["filter"], options=SubscribeOptions(qos=wish["qos"]))
        else:
            self.client.subscribe(wish["filter"], wish["qos"])
        self.done.acquire()
        say("subscribed", code=self.granted)

    def publish(self, wish):
        properties = paho_properties(PacketTypes.PUBLISH, wish["properties"]) if self.is_5 else None
        self.client.publish(wish["topic"], wish["payload"], wish["qos"], wish["retain"], properties)
        self.done.acquire()
        say("published")

    def disconnect(self, _wish):
        self.client.disconnect()
        self.done.acquire()
        self.client.loop_stop()
        say("disconnected")

    def run(self, lines):
        for line in lines:
            wish = json.loads(line)
            getattr(self, wish["do"])(wish)


class Asynchronous:
    """A client that lives in an event loop."""

    def run(self, lines):
        asyncio.run(self.serve(lines))

    async def serve(self, lines):
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, lines.readline):
            wish = json.loads(line)
            await getattr(self, wish["do"])(wish)


class Gmqtt(Asynchronous):
    """gmqtt, an implementation of its own."""

    async def connect(self, place):
        import gmqtt
        from gmqtt.mqtt.constants import MQTTv50, MQTTv311

        is_5 = place["version"] == 5
        will = place.get("will")
        if will:
            will = gmqtt.Message(will["topic"], will["payload"], qos=will["qos"], retain=will["retain"])
        extra = {"session_expiry_interval": place["expiry_secs"]} if is_5 else {}
        self.client = gmqtt.Client(place["id"], clean_session=place["clean"], will_message=will, **extra)
        self.present = asyncio.get_running_loop().create_future()
        self.client.on_connect = self.on_connect
        self.client.on_message = self.on_message
        self.client.on_subscribe = self.on_subscribe
        version = MQTTv50 if is_5 else MQTTv311
        await self.client.connect(place["host"], place["port"], ssl=tls_of(place) or False, version=version)
        say("connected", present=bool(await self.present))

    def on_connect(self, _client, flags, _reason, _properties):
        self.present.set_result(flags & 1)

    async def on_message(self, _client, topic, payload, qos, properties):
        # Each property is a list, as user properties are.
        found = {}
        for ours, theirs in (
            ("content_type", "content_type"),
            ("response_topic", "response_topic"),
            ("correlation_data", "correlation_data"),
            ("expiry_secs", "message_expiry_interval"),
        ):
            if values := properties.get(theirs):
                value = values[0] if isinstance(values, list) else values
                found[ours] = value.decode() if isinstance(value, bytes) else value
        if pairs := properties.get("user_property"):
            found["user"] = [list(pair) for pair in pairs]
        retain = bool(properties.get("retain"))
        say("message", topic=topic, payload=payload.decode(), qos=qos, retain=retain, properties=found)
        return 0

    def on_subscribe(self, _client, _mid, reasons, _properties):
        self.granted.set_result(reasons[0])

    async def subscribe(self, wish):
        self.granted = asyncio.get_running_loop().create_future()
        self.client.subscribe(wish["filter"], qos=wish["qos"])
        say("subscribed", code=await self.granted)

    async def publish(self, wish):
        wanted, extra = wish["properties"], {}
        for ours, theirs in (
            ("content_type", "content_type"),
            ("response_topic", "response_topic"),
            ("correlation_data", "correlation_data"),
            ("expiry_secs", "message_expiry_interval"),
        ):
            if ours in wanted:
                extra[theirs] = wanted[ours]
        if "correlation_data" in extra:
            extra["correlation_data"] = extra["correlation_data"].encode()
        if "user" in wanted:
            extra["user_property"] = [tuple(pair) for pair in wanted["user"]]
        self.client.publish(wish["topic"], wish["payload"], qos=wish["qos"], retain=wish["retain"], **extra)
        # It keeps what is not acknowledged, and tells nobody when that is done.
        await self.client._persistent_storage.wait_empty()
        say("published")

    async def disconnect(self, _wish):
        try:
            await self.client.disconnect()
        except ssl.SSLError as error:
            # asyncio calls it an error when something of the server crossed with the end of its own stream.
            if "APPLICATION_DATA_AFTER_CLOSE_NOTIFY" not in str(error):
                raise
        say("disconnected")


class Aiomqtt(Asynchronous):
    """aiomqtt, which puts asyncio around Paho."""

    async def connect(self, place):
        import aiomqtt

        is_5 = place["version"] == 5
        will = place.get("will")
        if will:
            will = aiomqtt.Will(will["topic"], will["payload"], will["qos"], will["retain"])
        is_websocket = place["transport"] in ("ws", "wss")
        self.client = aiomqtt.Client(
            place["host"],
            place["port"],
            identifier=place["id"],
            timeout=180,
            protocol=aiomqtt.ProtocolVersion.V5 if is_5 else aiomqtt.ProtocolVersion.V311,
            will=will,
            transport="websockets" if is_websocket else "tcp",
            websocket_path=place["path"] if is_websocket else None,
            tls_context=tls_of(place),
            properties=connect_properties(place),
            **({"clean_start": place["clean"]} if is_5 else {"clean_session": place["clean"]}),
        )
        await self.client.__aenter__()
        self.reader = asyncio.create_task(self.read())
        # It does not say whether a session was there.
        say("connected", present=None)

    async def read(self):
        async for message in self.client.messages:
            paho_message(message)

    async def subscribe(self, wish):
        codes = await self.client.subscribe(wish["filter"], wish["qos"])
        say("subscribed", code=getattr(codes[0], "value", codes[0]))

    async def publish(self, wish):
        properties = None
        if wish["properties"]:
            properties = paho_properties(PacketTypes.PUBLISH, wish["properties"])
        await self.client.publish(wish["topic"], wish["payload"], wish["qos"], wish["retain"], properties=properties)
        say("published")

    async def disconnect(self, _wish):
        self.reader.cancel()
        await self.client.__aexit__(None, None, None)
        say("disconnected")


CLIENTS = {"paho": Paho, "gmqtt": Gmqtt, "aiomqtt": Aiomqtt}
CLIENTS[sys.argv[1]]().run(sys.stdin)

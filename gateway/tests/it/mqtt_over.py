"""Subscribes and publishes with the Eclipse Paho client over a transport of choice.

mqtt_over.py URL CLIENT_ID TOPIC PAYLOAD [CA CERTIFICATE KEY] [--login USER PASSWORD], with a URL of ws://, wss:// or mqtts://. It prints
what the gateway says, publishes at QoS 1, waits until the message has come back to its own subscription, and ends.
"""

import sys
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt


def main(url, client_id, topic, payload, *rest):
    url = urlsplit(url)
    login = rest[rest.index("--login") + 1 :] if "--login" in rest else None
    files = rest[: rest.index("--login")] if login else rest
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=mqtt.MQTTv5,
        transport="websockets" if url.scheme.startswith("ws") else "tcp",
    )
    if url.scheme.startswith("ws"):
        client.ws_set_options(path=url.path)
    if files:
        ca, certificate, key = (*files, None, None)[:3]
        client.tls_set(ca_certs=ca, certfile=certificate, keyfile=key)
    if login:
        client.username_pw_set(*login)

    def connected(client, _userdata, _flags, reason, _properties):
        print("connected:", reason, flush=True)
        if reason.is_failure:
            client.disconnect()
        else:
            client.subscribe(topic, qos=1)

    def subscribed(client, _userdata, _mid, reasons, _properties):
        print("subscribed:", *reasons, flush=True)
        client.publish(topic, payload, qos=1)

    def received(client, _userdata, message):
        print("received:", message.topic, len(message.payload), flush=True)
        if message.payload.decode() == payload:
            client.disconnect()

    client.on_connect = connected
    client.on_subscribe = subscribed
    client.on_message = received
    client.connect(url.hostname, url.port)
    client.loop_forever()


main(*sys.argv[1:])

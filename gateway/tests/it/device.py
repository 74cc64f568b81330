"""A device that takes commands, with the Eclipse Paho client: device.py HOST PORT VERSION CLIENT_ID PASSWORD MODE

VERSION is 4 (MQTT 3.1.1) or 5. MODE is "ack" (acknowledges), "answer" (acknowledges, and answers to the response topic) or
"silent" (does not even acknowledge). Without PASSWORD, that is with an empty one, it comes without credentials. Subscribes to CLIENT_ID/command/#, prints "subscribed", then each command as
"command: TOPIC PAYLOAD", and goes on until it is ended.
"""

import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def main(host, port, version, client_id, password, mode):
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=int(version),
        manual_ack=mode == "silent",
    )
    if password:
        client.username_pw_set(client_id, password)

    def connected(client, _userdata, _flags, reason, _properties):
        print("connected:", reason, flush=True)
        client.subscribe(client_id + "/command/#", qos=1)

    def subscribed(client, _userdata, _mid, reasons, _properties):
        print("subscribed", flush=True)

    def message(client, _userdata, message):
        print("command:", message.topic, message.payload.decode(), flush=True)
        asked = getattr(message.properties, "ResponseTopic", None)
        if mode == "answer" and asked:
            properties = Properties(PacketTypes.PUBLISH)
            properties.CorrelationData = message.properties.CorrelationData
            properties.ContentType = "text/plain"
            client.publish(asked, b"done: " + message.payload, qos=1, properties=properties)

    client.on_connect = connected
    client.on_subscribe = subscribed
    client.on_message = message
    client.connect(host, int(port))
    client.loop_forever()


main(*sys.argv[1:])

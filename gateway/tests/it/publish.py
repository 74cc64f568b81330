"""Publishes with the Eclipse Paho client: publish.py HOST PORT VERSION QOS CLIENT_ID TOPIC PAYLOAD...

VERSION is 4 (MQTT 3.1.1) or 5. Prints the result of the connection, then of each publish, and ends when all are done.
"""

import sys

import paho.mqtt.client as mqtt


def main(host, port, version, qos, client_id, topic, *payloads):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=int(version))
    waiting = set()

    def connected(client, _userdata, _flags, reason, _properties):
        print("connected:", reason, flush=True)
        for payload in payloads:
            waiting.add(client.publish(topic, payload, qos=int(qos)).mid)

    def published(client, _userdata, mid, reason, _properties):
        print("published:", reason, flush=True)
        waiting.discard(mid)
        if not waiting:
            client.disconnect()

    client.on_connect = connected
    client.on_publish = published
    client.connect(host, int(port))
    client.loop_forever()


main(*sys.argv[1:])

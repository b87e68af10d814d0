"""`kafka://HOST:PORT[,HOST:PORT]/TOPIC`: the log in a topic of Apache Kafka, which several processes share.

A partition of the log is one of the topic's, the number of an entry its offset there. Epochs and consumer groups are
in a second topic, `TOPIC-groups`. See docs/design/log-kafka.md.
"""

from tapehouse.bus.kafka.bus import KafkaBus

__all__ = ["KafkaBus"]

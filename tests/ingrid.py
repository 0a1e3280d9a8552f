"""A grid of Flower's in this process: its messages, contexts, strategies and apps are the package's own."""

import itertools

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

import edgemeta.flower

TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


class InProcess(Grid):
    """nodes: node -> its configuration; each message is answered when it is pulled. gone: who answers no more."""

    def __init__(self, nodes, **options):
        self.app, self.gone, self.numbers = edgemeta.flower.client_app(**options), set(), itertools.count(1)
        self.contexts = {
            node: Context(run_id=1, node_id=node, node_config=config, state=RecordDict(), run_config={})
            for node, config in nodes.items()
        }
        self.waiting = {}

    run = None

    def set_run(self, run):
        """Nothing is kept of it."""

    def create_message(self, *_):
        raise NotImplementedError

    def get_node_ids(self):
        return [node for node in self.contexts if node not in self.gone]

    def push_messages(self, messages):
        numbered = [(str(next(self.numbers)), message) for message in messages]
        for number, message in numbered:
            message.metadata.__dict__["_message_id"] = number
        self.waiting |= dict(numbered)
        return [number for number, _ in numbered]

    def pull_messages(self, message_ids):
        there = [self.waiting.pop(number) for number in message_ids if number in self.waiting]
        return [
            self.app(message, self.contexts[message.metadata.dst_node_id])
            for message in there
            if message.metadata.dst_node_id not in self.gone
        ]

    def send_and_receive(self, messages, *, timeout=None):  # noqa: ARG002
        return self.pull_messages(self.push_messages(messages))

"""What no answer may tell: names and places of this program."""

import re

# P22: paths, classes, stacks, addresses in memory and of hosts.
INTERNALS = re.compile(
    r"Traceback|\.(py|pyx|so|cc|h)\b|(^|[\s'\"(])~?/(?!testing\.|inference\.)[\w.-]+|0x[0-9a-fA-F]{5,}"
    r"|\b[A-Za-z]+(Error|Exception)\b|<[^>]* object|\b(gateway|grpc|google|numpy|onnxruntime|asyncio)\.[a-z_]+\b"
    r"|\d+\.\d+\.\d+\.\d+|secret"
)

"""The descriptor pool that holds the gateway's messages.

The messages of package `inference` bear the names that Triton's and KServe's own stubs register in the default pool;
two definitions of one name in one pool are an error, so a process that uses such a client beside ours needs this one.
Generated modules import this module under the name `descriptor_pool`.
"""

from google.protobuf import descriptor_pool

_POOL = descriptor_pool.DescriptorPool()


def Default() -> descriptor_pool.DescriptorPool:
    """The gateway's own pool; the name is the one that generated code calls."""
    return _POOL

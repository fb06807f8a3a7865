"""The descriptor pool that holds the gateway's messages.

The messages of package `inference` bear the names that Triton's and KServe's own stubs register in the default pool;
two definitions of one name in one pool are an error, so a process that uses such a client beside ours needs this one.
Generated modules import this module under the name `descriptor_pool`.
"""

from google.protobuf import any_pb2, descriptor_pool, duration_pb2, wrappers_pb2

_POOL = descriptor_pool.DescriptorPool()
for _file in (any_pb2, duration_pb2, wrappers_pb2):  # what our own files import
    _POOL.AddSerializedFile(_file.DESCRIPTOR.serialized_pb)


def Default() -> descriptor_pool.DescriptorPool:
    """The gateway's own pool; the name is the one that generated code calls."""
    return _POOL

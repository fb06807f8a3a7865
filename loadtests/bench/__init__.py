"""The gateway's benchmark: `python -m loadtests.bench --help`.

Servers of one protocol (the gateway, the gateway on the other transport, a bare grpc.aio server, any server that a
command starts or that runs already) are driven by h2load with the same bytes, in turns, in one run.
"""

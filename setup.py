"""Builds the package; what is not said here is in pyproject.toml.

What every request runs through is compiled to C by mypyc, from the same source: a third less CPU a request. Where that
cannot be done (no C compiler, no headers) the package is built without, and says so; it is the same but slower.
GATEWAY_COMPILE=never|require decides otherwise. An editable install is never compiled: it would hide what is edited.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

# What runs in every request. The rest is not worth the time of the compiler; classes that other code derives from, and
# those of msgspec, cannot be compiled.
MODULES = [
    "gateway/access/gatekeeper.py",
    "gateway/access/principal.py",
    "gateway/access/quota_pass.py",
    "gateway/access/quota_use.py",
    "gateway/access/quotas.py",
    "gateway/access/token_bucket.py",
    "gateway/backoff.py",
    "gateway/api/answer_metadata.py",
    "gateway/api/caller.py",
    "gateway/api/decode.py",
    "gateway/api/edge_call.py",
    "gateway/api/element.py",
    "gateway/api/encode.py",
    "gateway/api/exchange.py",
    "gateway/api/load_reports.py",
    "gateway/api/stale_calls.py",
    "gateway/api/signature.py",
    "gateway/api/template.py",
    "gateway/api/varint.py",
    "gateway/api/wire.py",
    "gateway/features/feature_queue.py",
    "gateway/records/worker/large_inputs.py",
    "gateway/records/worker/fast_path.py",
    "gateway/records/worker/record.py",
    "gateway/records/worker/record_stream.py",
    "gateway/rest/answer_coding.py",
    "gateway/rest/answer_queue.py",
    "gateway/rest/chunked_body.py",
    "gateway/rest/endpoint.py",
    "gateway/rest/http1_connection.py",
    "gateway/rest/http1_protocol.py",
    "gateway/rest/http2_stream.py",
    "gateway/rest/http_head.py",
    "gateway/rest/incoming_body.py",
    "gateway/rest/infer_body.py",
    "gateway/rest/infer_reply.py",
    "gateway/rest/json_tensor.py",
    "gateway/rest/json_text.py",
    "gateway/rest/response_head.py",
    "gateway/rest/rest_call.py",
    "gateway/rest/rest_caller.py",
    "gateway/rest/rest_front.py",
    "gateway/rest/rest_service.py",
    "gateway/routing/decision/compiled.py",
    "gateway/routing/decision/decide.py",
    "gateway/routing/document/key.py",
    "gateway/routing/decision/snapshot.py",
    "gateway/routing/document/source.py",
    "gateway/rpc/busy_poll.py",
    "gateway/rpc/server_call.py",
    "gateway/rpc/connection.py",
    "gateway/rpc/deadline.py",
    "gateway/rpc/server_state.py",
    "gateway/rpc/held_refusals.py",
    "gateway/rpc/lifetime.py",
    "gateway/rpc/message.py",
    "gateway/rpc/metadata.py",
    "gateway/rpc/method.py",
    "gateway/rpc/output.py",
    "gateway/rpc/stall.py",
    "gateway/rpc/task_call.py",
    "gateway/rpc/callback_call.py",
    "gateway/serving/admission.py",
    "gateway/serving/arrivals.py",
    "gateway/serving/answer_reader.py",
    "gateway/serving/arm_tally.py",
    "gateway/serving/key_sample.py",
    "gateway/serving/batch.py",
    "gateway/serving/batcher.py",
    "gateway/serving/call.py",
    "gateway/serving/call_accounting.py",
    "gateway/serving/call_queue.py",
    "gateway/serving/call_record.py",
    "gateway/serving/call_trace.py",
    "gateway/serving/cold_queue.py",
    "gateway/serving/engine.py",
    "gateway/serving/ensemble_queue.py",
    "gateway/serving/ensemble_step.py",
    "gateway/serving/fallback.py",
    "gateway/serving/foresight.py",
    "gateway/serving/inline_watch.py",
    "gateway/serving/input_digest.py",
    "gateway/serving/line_limit.py",
    "gateway/serving/queue_wait.py",
    "gateway/serving/refusals.py",
    "gateway/serving/request_ids.py",
    "gateway/serving/response_cache.py",
    "gateway/serving/run.py",
    "gateway/serving/run_cost.py",
    "gateway/serving/run_page.py",
    "gateway/serving/mirroring.py",
    "gateway/serving/served_arm.py",
    "gateway/serving/served_arms.py",
    "gateway/serving/shared_run_state.py",
    "gateway/api/feedback_token.py",
    "gateway/serving/tracer.py",
    "gateway/serving/version.py",
    "gateway/serving/version_queue.py",
    "gateway/serving/wait_check.py",
    "gateway/telemetry/counters.py",
    "gateway/telemetry/histogram.py",
]
WISH = os.environ.get("GATEWAY_COMPILE", "auto")
LEVEL = os.environ.get("GATEWAY_COMPILE_LEVEL", "2")  # of optimisation; tests of what is compiled save minutes by 0
COMMANDS = {"build", "build_ext", "bdist_wheel", "install"}


class CompiledOrNot(build_ext):
    """All modules are compiled or none: half of them would not fit together."""

    def run(self):
        try:
            super().run()
        except Exception as error:
            if WISH == "require":
                raise
            give_up(f"the compiler failed: {error}")
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions.clear()


def extensions():
    """The extensions to build; none where they are not wanted or cannot be built."""
    if WISH == "never" or not COMMANDS.intersection(sys.argv) or "editable_wheel" in sys.argv:
        return []
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    missing = [
        what
        for what, there in (
            (f"the C compiler {compiler}", shutil.which(compiler)),
            ("Python.h", Path(sysconfig.get_path("include"), "Python.h").exists()),
        )
        if not there
    ]
    if missing:
        if WISH == "require":
            raise SystemExit(f"GATEWAY_COMPILE=require, but there is no {' and no '.join(missing)}")
        give_up(f"there is no {' and no '.join(missing)}")
        return []
    try:
        from mypyc.build import mypycify

        # Types are checked by `make check`; here only mypyc's own needs count, and what is not installed is Any.
        made = mypycify(["--config-file=", "--ignore-missing-imports", *MODULES], opt_level=LEVEL)
        for extension in made:
            # Python's own flags ask for warnings: of generated code nobody reads them, and the search takes a minute.
            extension.extra_compile_args.append("-Wno-all")
        return made
    except (ImportError, SystemExit) as error:  # it prints what it does not like, and exits
        if WISH == "require":
            raise
        give_up(f"mypyc failed: {error}")
        return []


def give_up(reason):
    sys.stderr.write(f"model-serving-gateway is built without compiled modules: {reason}\n")


setup(ext_modules=extensions(), cmdclass={"build_ext": CompiledOrNot})

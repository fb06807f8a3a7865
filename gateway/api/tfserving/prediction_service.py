"""The servicers of tensorflow.serving: predictions through the same exchanges as over Open Inference Protocol v2.

Source: tensorflow_serving/apis/{prediction_service,model_service,get_model_metadata,get_model_status}.proto.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from gateway.access.permissions import RPCS
from gateway.access.principal import ANONYMOUS, Principal
from gateway.api import model_metadata
from gateway.api.exchange import Exchanges
from gateway.api.naming import check_model_name, check_version, shown
from gateway.api.tfserving.example_columns import columns_of, read_input, rows_of
from gateway.api.tfserving.fitting_signatures import (
    CLASSIFY,
    REGRESS,
    class_output,
    classification_response,
    fitting_signatures,
    regression_response,
    value_output,
)
from gateway.api.tfserving.model_choice import DEFAULT_SIGNATURE, choice_of, number_of, spec_of
from gateway.api.tfserving.predict_request import PredictQuestion, PredictRequests, leading_model
from gateway.api.tfserving.prediction_caller import AnswerForm, PredictionCaller, check_carried, predict_response
from gateway.errors import FailedPrecondition, GatewayError, Internal, InvalidArgument, Unimplemented, UnknownVersion
from gateway.pb import tensorflow_serving_pb2 as tfs
from gateway.pb.tensorflow_serving_pb2_grpc import ModelServiceServicer, PredictionServiceServicer
from gateway.rpc.handler import CallbackContext, UnreadCall, announced_to, by_callback
from gateway.serving.arrivals import Arrival
from gateway.serving.catalog import Catalog
from gateway.serving.version import VersionState
from gateway.tensor import TensorSpec

_METADATA: Final = "signature_def"
_SIGNATURES: Final = (DEFAULT_SIGNATURE, CLASSIFY, REGRESS)
_PREDICT: Final = RPCS["/tensorflow.serving.PredictionService/Predict"].roles
_STATES: Final = {
    VersionState.START: tfs.ModelVersionStatus.START,
    VersionState.LOADING: tfs.ModelVersionStatus.LOADING,
    VersionState.AVAILABLE: tfs.ModelVersionStatus.AVAILABLE,
    VersionState.UNLOADING: tfs.ModelVersionStatus.UNLOADING,
    VersionState.END: tfs.ModelVersionStatus.END,
    VersionState.FAILED: tfs.ModelVersionStatus.END,  # the reason is in its status, as TensorFlow Serving has it
}
_FAILED: Final = 9  # FAILED_PRECONDITION
_LEAD_BYTES: Final = 512  # of a message: more than the longest name of a model takes
_LONG_EXAMPLES: Final = 1 << 14  # bytes: some hundred examples take a few milliseconds

logger = logging.getLogger(__name__)


class TfPredictionService(PredictionServiceServicer):
    """Serves `tensorflow.serving.PredictionService`. Units: `max_bytes` bounds a tensor that is filled up."""

    def __init__(self, exchanges: Exchanges, catalog: Catalog, *, max_bytes: int) -> None:
        self._exchanges = exchanges
        self._catalog = catalog
        self._max_bytes = max_bytes
        self._requests = PredictRequests(max_bytes)

    @announced_to("announced", leading_model)
    @by_callback
    def Predict(self, message: bytes | memoryview, context: CallbackContext) -> None:
        if not self._enters(message, context):
            return
        read = partial(self._requests.read, message)
        begin = partial(self._begin, context, predict_response, check_carried)
        if self._requests.takes_long(message):
            self._exchanges.aside(read, lambda made: begin(made.result))
        else:
            begin(read)

    @announced_to("announced", leading_model)
    @by_callback
    def Classify(self, message: bytes | memoryview, context: CallbackContext) -> None:
        self._of_examples(message, context, CLASSIFY, class_output, classification_response)

    @announced_to("announced", leading_model)
    @by_callback
    def Regress(self, message: bytes | memoryview, context: CallbackContext) -> None:
        self._of_examples(message, context, REGRESS, value_output, regression_response)

    def announced(self, context: UnreadCall, size_bytes: int, lead: bytes) -> Arrival | None:
        """Refuses a long message at its beginning, if it is known by then that it would be refused at its end.

        Returns the call on its way, if it is known who serves it.
        """
        model = leading_model(lead)
        return self._exchanges.foresee(model, "", context, size_bytes) if model else None

    async def MultiInference(self, request: tfs.MultiInferenceRequest, context: object) -> tfs.MultiInferenceResponse:
        raise Unimplemented("MultiInference is not served: call Classify and Regress, one for each task")

    async def GetModelMetadata(
        self, request: tfs.GetModelMetadataRequest, context: object
    ) -> tfs.GetModelMetadataResponse:
        choice = choice_of(request.model_spec, *_SIGNATURES)
        if not request.metadata_field:
            raise InvalidArgument(f"metadata_field is empty: ask for {_METADATA}")
        for field in request.metadata_field:
            if field != _METADATA:
                raise InvalidArgument(f"metadata_field {shown(field)} is not known: ask for {_METADATA}")
        version = model_metadata.find(self._catalog, choice.model, choice.version)
        response = tfs.GetModelMetadataResponse(model_spec=spec_of(version.model, version.name, ""))
        signatures = tfs.SignatureDefMap(signature_def=fitting_signatures(version.inputs, version.outputs))
        response.metadata[_METADATA].Pack(signatures)
        return response

    def _of_examples(
        self,
        message: bytes | memoryview,
        context: CallbackContext,
        signature: str,
        find: Callable[[Sequence[TensorSpec]], TensorSpec],
        form: AnswerForm,
    ) -> None:
        if not self._enters(message, context):
            return
        read = partial(self._question_of, message, context.principal, signature, find)
        begin = partial(self._begin, context, form, find)
        if len(message) > _LONG_EXAMPLES:
            self._exchanges.aside(read, lambda made: begin(made.result))
        else:
            begin(read)

    def _enters(self, message: bytes | memoryview, context: CallbackContext) -> bool:
        """Asks roles and quotas by the model that the message names first, as serializers write it; or answers it.

        In another form a message is short, or is asked for when it has been read.
        """
        if context.principal is ANONYMOUS and context.quota_pass is None:
            return True
        model = leading_model(bytes(message[:_LEAD_BYTES]))
        try:
            if model:
                self._exchanges.enter(model, context, context.message_size)
        except GatewayError as error:
            context.fail(error)
            return False
        return True

    def _question_of(
        self,
        message: bytes | memoryview,
        principal: Principal,
        signature: str,
        find: Callable[[Sequence[TensorSpec]], TensorSpec],
    ) -> PredictQuestion:
        """Returns what a request with examples asks; on any thread. Raises: GatewayError."""
        request = read_input(bytes(message))
        choice = choice_of(request.model_spec, DEFAULT_SIGNATURE, signature)
        if principal is not ANONYMOUS:  # before the contract tells whether there is such a model
            principal.check(_PREDICT, choice.model)
        version = model_metadata.find(self._catalog, choice.model, choice.version)
        output = find(version.outputs)
        columns = columns_of(version.inputs, rows_of(request.input), self._max_bytes)
        return self._requests.of_tensors(choice, columns, (output.name,))

    def _begin(
        self,
        context: CallbackContext,
        form: AnswerForm,
        check: Callable[[Sequence[TensorSpec]], object],
        read: Callable[[], PredictQuestion],
    ) -> None:
        try:
            question = read()
        except GatewayError as error:
            context.fail(error)
            return
        except Exception:
            # The boundary of a request: what a defect of ours raised on the thread has no other reader.
            logger.exception("reading a request of TensorFlow Serving's protocol failed")
            context.fail(Internal())
            return
        caller = PredictionCaller(context, form, check, question.size_bytes)
        if self._exchanges.begin(question.query, "", question.raw, caller, reports_load=True):
            self._requests.keep(question)


class TfModelService(ModelServiceServicer):
    """Serves `tensorflow.serving.ModelService`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def GetModelStatus(self, request: tfs.GetModelStatusRequest, context: object) -> tfs.GetModelStatusResponse:
        choice = choice_of(request.model_spec, *_SIGNATURES)
        check_model_name(choice.model)
        check_version(choice.version)
        states = self._catalog.states(choice.model)
        if not states:
            model_metadata.find(self._catalog, choice.model, choice.version)  # says why
        response = tfs.GetModelStatusResponse()
        named = [status for status in states if not choice.version or status.version == choice.version]
        if not named:
            raise UnknownVersion(choice.model, choice.version)
        for status in named:
            number = number_of(status.version)
            if number is None:
                continue
            told = response.model_version_status.add(version=number, state=_STATES[status.state])
            told.status.SetInParent()
            if status.state is VersionState.FAILED:
                told.status.error_code, told.status.error_message = _FAILED, status.reason
        if not response.model_version_status:
            raise FailedPrecondition(
                f"the versions of model {shown(choice.model)} are no numbers, as TensorFlow Serving's are: "
                "ask RepositoryIndex of Open Inference Protocol v2"
            )
        return response

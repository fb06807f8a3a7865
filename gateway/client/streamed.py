"""What one message of a stream of answers says."""

from gateway.client.answer import Answer
from gateway.client.call_error import CallError
from gateway.client.inference_call import CODE_PARAMETER, answer_of
from gateway.pb import inference_pb2 as pb


def streamed_outcome(message: pb.ModelStreamInferResponse) -> Answer | CallError:
    """Returns the answer to one request of a stream, or its error."""
    response = message.infer_response
    if not message.error_message:
        return answer_of(response)
    code = response.parameters[CODE_PARAMETER].string_param if CODE_PARAMETER in response.parameters else "UNKNOWN"
    return CallError(code, message.error_message, request_id=response.id)

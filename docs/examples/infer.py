"""One request to the demo model `digits` with Triton's client (pip install 'tritonclient[grpc]'), and who answered.

python docs/examples/infer.py [host:port]
"""

import sys

import numpy as np
import tritonclient.grpc as triton

server = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001"
picture = np.zeros((8, 8), np.float32)
picture[1:7, 3:5] = 16  # an upright stroke

image = triton.InferInput("image", [1, 64], "FP32")
image.set_data_from_numpy(picture.reshape(1, 64))
with triton.InferenceServerClient(server) as client:
    answer = client.infer("digits", [image], headers={"x-user-id": "ann"})
    print(f"version {answer.get_response().model_version} says {answer.as_numpy('label')[0, 0]}")

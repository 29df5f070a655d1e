"""Asks the server with the Databricks SDK: endpoints, queries in each body, SQL. Prints one JSON object."""

import json
import sys

from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound
from databricks.sdk.service.serving import ChatMessage, ChatMessageRole, DataframeSplitInput

workspace = WorkspaceClient(host=sys.argv[1], token="unused", auth_type="pat")
endpoints = workspace.serving_endpoints
columns = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
row = [39.1, 18.7, 181, 3750]
say = [ChatMessage(role=ChatMessageRole.USER, content="quack")]

chat = endpoints.query("echo-chat", messages=say, max_tokens=20, temperature=0.0)
try:
    endpoints.get("gone")
    error = None
except NotFound as thrown:
    error = thrown.error_code
statement = workspace.statement_execution.execute_statement(
    statement="SELECT ai_query('echo-chat', 'from SQL') AS said", warehouse_id="any"
)

print(
    json.dumps(
        {
            "endpoints": [endpoint.name for endpoint in endpoints.list()],
            "state": endpoints.get("penguins").state.ready.value,
            "content": chat.choices[0].message.content,
            "completion": endpoints.query("echo-completions", prompt="once").choices[0].text,
            "length": len(endpoints.query("embedded-static-256", input=["a duck"]).data[0].embedding),
            "predictions": [
                endpoints.query("penguins", dataframe_records=[dict(zip(columns, row))]).predictions,
                endpoints.query(
                    "penguins", dataframe_split=DataframeSplitInput(columns=columns, data=[row])
                ).predictions,
                endpoints.query("penguins", instances=[row]).predictions,
                endpoints.query("penguins", inputs=[row]).predictions,
            ],
            "rows": statement.result.data_array,
            "error": error,
        }
    )
)

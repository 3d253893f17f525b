"""picows under uvloop: an echo server."""

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server


class Echo(WSListener):
    """Sends back each message."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            transport.send(frame.msg_type, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


def made(_request: WSUpgradeRequest) -> Echo:
    return Echo()


async def main() -> None:
    server = await ws_create_server(made, "127.0.0.1", 0, backlog=65535)
    print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/echo", flush=True)
    await server.serve_forever()


uvloop.run(main())

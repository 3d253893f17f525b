// Go with gorilla/websocket: an echo server, one goroutine a connection.
package main

import (
	"fmt"
	"net"
	"net/http"
	"runtime"

	"github.com/gorilla/websocket"
)

func main() {
	runtime.GOMAXPROCS(1)
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("ws://%s/echo\n", listener.Addr())
	http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connection, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer connection.Close()
		for {
			kind, data, err := connection.ReadMessage()
			if err != nil || connection.WriteMessage(kind, data) != nil {
				return
			}
		}
	}))
}

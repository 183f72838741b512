// A service of net/http: for each GET /both/N two GETs to the server at UPSTREAM at the same time, over the pooled
// connections of one client. Arguments: its own port, that of the other server.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

func leaf(number int, index int, done *sync.WaitGroup) {
	defer done.Done()
	time.Sleep(time.Duration(number*7%5) * time.Millisecond)
	answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%s/wait/%d/%d", os.Args[2], 1+number%7, number*10+index))
	if err != nil {
		panic(err)
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
}

func main() {
	http.HandleFunc("/both/", func(response http.ResponseWriter, request *http.Request) {
		number, _ := strconv.Atoi(strings.TrimPrefix(request.URL.Path, "/both/"))
		var done sync.WaitGroup
		done.Add(2)
		go leaf(number, 0, &done)
		go leaf(number, 1, &done)
		done.Wait()
		io.WriteString(response, "ok\n")
	})
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}

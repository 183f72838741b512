// The lab's service in Go: net/http on both sides, a goroutine for each request and one for each call that is made at
// the same time; Redis and PostgreSQL (simple queries) by hand over pooled connections.
//
// LAB_ROLE says which service it is, LAB_* where the others are. The path is the place in the tree, and what it calls
// are the places below.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	upstreams = strings.Split(os.Getenv("LAB_UPSTREAMS"), ",")
	parallel  = os.Getenv("LAB_PARALLEL") == "1"
	client    = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
)

// Sleeps as long as seed, place and step say: FNV-1a, so that all languages think alike.
func think(place string, step int) {
	number := uint32(2166136261)
	for _, letter := range []byte(fmt.Sprintf("%s/%s/%d", os.Getenv("LAB_SEED"), place, step)) {
		number = (number ^ uint32(letter)) * 16777619
	}
	longest, _ := strconv.Atoi(os.Getenv("LAB_THINK_US"))
	time.Sleep(time.Duration(number%uint32(longest+1)) * time.Microsecond)
}

type connection struct {
	net.Conn
	reader *bufio.Reader
}

// Connections that are free, the one used last first.
type pool struct {
	lock sync.Mutex
	free []*connection
	open func() (*connection, error)
}

func (p *pool) with(use func(*connection) error) error {
	p.lock.Lock()
	var taken *connection
	if last := len(p.free) - 1; last >= 0 {
		taken, p.free = p.free[last], p.free[:last]
	}
	p.lock.Unlock()
	if taken == nil {
		opened, err := p.open()
		if err != nil {
			return err
		}
		taken = opened
	}
	if err := use(taken); err != nil {
		taken.Close()
		return err
	}
	p.lock.Lock()
	p.free = append(p.free, taken)
	p.lock.Unlock()
	return nil
}

func dial(port string) (*connection, error) {
	raw, err := net.Dial("tcp", "127.0.0.1:"+os.Getenv(port))
	if err != nil {
		return nil, err
	}
	return &connection{raw, bufio.NewReader(raw)}, nil
}

var redis = &pool{open: func() (*connection, error) { return dial("LAB_REDIS") }}

// Gives one command; its answer is one line here.
func command(words ...string) error {
	return redis.with(func(c *connection) error {
		text := fmt.Sprintf("*%d\r\n", len(words))
		for _, word := range words {
			text += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
		}
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
		line, err := c.reader.ReadString('\n')
		if err == nil && line[0] == '-' {
			err = fmt.Errorf("redis: %s", line)
		}
		return err
	})
}

func send(c *connection, kind string, text string) error {
	message := append([]byte(kind), 0, 0, 0, 0)
	message = append(append(message, text...), 0)
	binary.BigEndian.PutUint32(message[len(kind):], uint32(len(message)-len(kind)))
	_, err := c.Write(message)
	return err
}

// Reads until ReadyForQuery; whether a row came before it.
func ready(c *connection) (bool, error) {
	row := false
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(c.reader, head); err != nil {
			return row, err
		}
		if _, err := c.reader.Discard(int(binary.BigEndian.Uint32(head[1:])) - 4); err != nil {
			return row, err
		}
		switch head[0] {
		case 'D':
			row = true
		case 'Z':
			return row, nil
		}
	}
}

var postgresql = &pool{open: func() (*connection, error) {
	c, err := dial("LAB_POSTGRESQL")
	if err == nil {
		err = send(c, "", "\x00\x03\x00\x00user\x00lab\x00database\x00postgres\x00")
	}
	if err == nil {
		_, err = ready(c)
	}
	return c, err
}}

func ask(alias string) error {
	return postgresql.with(func(c *connection) error {
		if err := send(c, "Q", "SELECT 1 AS "+alias); err != nil {
			return err
		}
		row, err := ready(c)
		if err == nil && !row {
			err = fmt.Errorf("no row")
		}
		return err
	})
}

func call(place string, index int) error {
	think(place, index)
	answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%s/task/%s/%d", upstreams[index], place, index))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != 200 {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	return nil
}

func front(place string) error {
	if !parallel {
		for index := range upstreams {
			if err := call(place, index); err != nil {
				return err
			}
		}
		return nil
	}
	errors := make(chan error)
	for index := range upstreams {
		go func(index int) { errors <- call(place, index) }(index)
	}
	var failed error
	for range upstreams {
		if err := <-errors; err != nil {
			failed = err
		}
	}
	return failed
}

func cache(place string) error {
	key := "lab:" + strings.ReplaceAll(place, "/", ":")
	think(place, 0)
	if err := command("GET", key+":0"); err != nil {
		return err
	}
	think(place, 1)
	return command("INCR", key+":1")
}

func store(place string) error {
	think(place, 0)
	if err := ask("lab_" + strings.ReplaceAll(place, "/", "_") + "_0"); err != nil {
		return err
	}
	think(place, 1)
	return command("GET", "lab:"+strings.ReplaceAll(place, "/", ":")+":1")
}

func main() {
	work := map[string]func(string) error{"s1": front, "s2": cache, "s3": store}[os.Getenv("LAB_ROLE")]
	http.HandleFunc("/task/", func(response http.ResponseWriter, request *http.Request) {
		place := strings.TrimPrefix(request.URL.Path, "/task/")
		err := work(place)
		think(place, 9)
		if err != nil {
			http.Error(response, err.Error(), 500)
			return
		}
		io.WriteString(response, "ok")
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe("127.0.0.1:"+os.Getenv("LAB_PORT"), nil))
}

// What the fan-out is compared with: one goroutine for each specification, the agent for specification i is i mod N,
// the standard library's client with its defaults and 30 s for a request, results through a channel. No retry, no bound.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

type testCase struct {
	Input  []int `json:"input"`
	Output []int `json:"output"`
}

type specification struct {
	ID          string     `json:"id"`
	Word        string     `json:"word"`
	StackEffect string     `json:"stack_effect"`
	PatternID   string     `json:"pattern_id"`
	TestCases   []testCase `json:"test_cases"`
}

type result struct {
	specID    string
	code      string
	success   bool
	latencyMS float64
}

type agent struct {
	url    string
	client *http.Client
}

func (a *agent) post(path string, body, answer any) error {
	sent, err := json.Marshal(body)
	if err != nil {
		return err
	}
	reply, err := a.client.Post(a.url+path, "application/json", bytes.NewReader(sent))
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	return json.NewDecoder(reply.Body).Decode(answer)
}

func (a *agent) process(spec specification) (found result) {
	began := time.Now()
	found.specID = spec.ID
	defer func() { found.latencyMS = float64(time.Since(began).Microseconds()) / 1000 }()
	var checked struct{ Valid bool }
	if a.post("/spec/validate", spec, &checked) != nil || !checked.Valid {
		return
	}
	var made struct {
		Code  string
		Tests []string
		Error string
	}
	if a.post("/generate", spec, &made) != nil || made.Error != "" {
		return
	}
	var verified struct{ Valid bool }
	asked := map[string]string{"code": made.Code, "effect": spec.StackEffect}
	if a.post("/verify", asked, &verified) != nil || !verified.Valid {
		return
	}
	found.code, found.success = made.Code, true
	return
}

func main() {
	file := flag.String("specs", "", "a file with a JSON array of specifications")
	urls := flag.String("agents", "", "addresses, with commas between them")
	flag.Parse()
	text, err := os.ReadFile(*file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	var specs []specification
	if err := json.Unmarshal(text, &specs); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	var agents []*agent
	for _, url := range strings.Split(*urls, ",") {
		agents = append(agents, &agent{url: url, client: &http.Client{Timeout: 30 * time.Second}})
	}
	began := time.Now()
	results := make(chan result, len(specs))
	var waiting sync.WaitGroup
	for i, spec := range specs {
		waiting.Add(1)
		go func(spec specification, a *agent) {
			defer waiting.Done()
			results <- a.process(spec)
		}(spec, agents[i%len(agents)])
	}
	waiting.Wait()
	close(results)
	took, good := time.Since(began).Seconds(), 0
	for found := range results {
		if found.success {
			good++
		}
	}
	fmt.Printf("Throughput: %.2f specs/second\n", float64(len(specs))/took)
	fmt.Printf("Successful: %d\nFailed: %d\n", good, len(specs)-good)
}
